"""Latent diffusion's text transformer on its own weights and inputs, and what makes it a conditioner."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from conditioning.numbers_tokenizer import Numbers
from difflab.conditioning.build import build_conditioners
from difflab.conditioning.text.config import TokenTransformerConditionerConfig
from difflab.conditioning.text.token_transformer import TokenTransformerConditioner
from difflab.conditioning.tokens.spec import spec_of
from difflab.interop.keymap import KeyMap, shapes_of
from difflab.interop.ldm_conditioners import UNUSED, token_transformer_entries
from difflab.networks.towers.token_transformer import TokenTransformer
from golden_fixtures import Fixture, load

NAMES = ["ldm_bert_embedder", "ldm_transformer_embedder_bbox"]


def config_of(args: dict[str, Any], **options: Any) -> TokenTransformerConditionerConfig:
    tokenizer = {"kind": "clip", "context_length": args["max_seq_len"]}
    sizes = {"width": args["n_embed"], "layers": args["n_layer"]}
    return TokenTransformerConditionerConfig.model_validate(
        {"kind": "token_transformer", "tokenizer": tokenizer, **sizes, **options}
    )


def conditioner_of(fixture: Fixture) -> TokenTransformerConditioner:
    """The conditioner of a fixture, with its weights."""
    args = fixture.spec["args"]
    config = config_of(args)
    tokenizer = Numbers(args["max_seq_len"], args["vocab_size"])
    encoder = TokenTransformer(spec_of(config), vocabulary=args["vocab_size"], context=args["max_seq_len"])
    conditioner = TokenTransformerConditioner(tokenizer, encoder, drop_rate=0.1)
    keymap = KeyMap("ldm", token_transformer_entries(config), shapes_of(conditioner.state_dict()))
    official = {key: value for key, value in fixture.state_dict().items() if key not in UNUSED}
    conditioner.load_state_dict(keymap.from_official(official))
    return conditioner


@pytest.fixture(params=NAMES)
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return load("latent", request.param)


def test_the_states_are_latent_diffusion_s(fixture: Fixture) -> None:
    conditioner = conditioner_of(fixture)
    fixture.check_close("out", conditioner.encoder(fixture.input("tokens")))


def test_the_official_head_on_these_states_gives_the_official_logits(fixture: Fixture) -> None:
    states = conditioner_of(fixture).encoder(fixture.input("tokens"))
    weight, bias = (fixture.state_dict()[key] for key in UNUSED)
    fixture.check_close("logits", states @ weight.T + bias)


def tokens_of(conditioner: TokenTransformerConditioner, captions: list[str], dropped: Tensor | None = None) -> Tensor:
    made = conditioner({"index": torch.arange(len(captions)), "caption": captions}, dropped)
    assert made.fields().keys() == {"tokens"}
    assert made.tokens is not None
    return made.tokens


def test_captions_are_read_with_their_padding() -> None:
    fixture = load("latent", "ldm_bert_embedder")
    conditioner = conditioner_of(fixture)
    found = tokens_of(conditioner, ["1 5"])
    torch.testing.assert_close(found, conditioner.encoder(torch.tensor([[1, 5, *[99] * 7]])))


def test_the_dropped_caption_is_the_empty_one() -> None:
    conditioner = conditioner_of(load("latent", "ldm_bert_embedder"))
    found = tokens_of(conditioner, ["1 2 3", "4"], torch.tensor([True, False]))
    torch.testing.assert_close(found[:1], tokens_of(conditioner, [""]))
    torch.testing.assert_close(found[1:], tokens_of(conditioner, ["4"]))


def test_ids_that_the_loader_made_are_used() -> None:
    conditioner = conditioner_of(load("latent", "ldm_bert_embedder"))
    ((field, tokenizer),) = conditioner.tokenizers.items()
    tokens = tokenizer(["5 6"])
    loaded = {"index": torch.arange(1), "caption": ["1"], field: tokens.ids, f"{field}_mask": tokens.mask}
    assert torch.equal(conditioner(loaded).tokens, tokens_of(conditioner, ["5 6"]))


def test_every_weight_gets_a_gradient_also_with_recomputed_activations() -> None:
    gradients = []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        config = config_of(
            {"max_seq_len": 8, "n_embed": 16, "n_layer": 2},
            heads=2,
            head_channels=12,
            checkpoint_activations=checkpoint,
        )
        conditioner = build_conditioners({"caption": config}, embedding_dim=4, image_size=16)["caption"]
        assert isinstance(conditioner, TokenTransformerConditioner)
        tokens_of(conditioner, ["a red circle", "a blue square"]).square().mean().backward()
        gradients.append({name: p.grad for name, p in conditioner.named_parameters()})
    assert all(one is not None and one.abs().sum() > 0 for one in gradients[0].values())
    for name, one in gradients[0].items():
        torch.testing.assert_close(one, gradients[1][name])
