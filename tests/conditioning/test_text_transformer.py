"""The trained text transformer against GLIDE's, on the same weights and inputs, and what makes it a conditioner."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conditioning.numbers_tokenizer import Numbers
from difflab.conditioning.build import build_conditioners
from difflab.conditioning.text.config import TextTransformerConditionerConfig
from difflab.conditioning.text.transformer import TextTransformerConditioner
from difflab.interop.glide import text_entries
from difflab.interop.guided import GUIDED
from difflab.interop.keymap import KeyMap, shapes_of
from difflab.interop.layout import Target
from difflab.networks.config import UNetConfig
from difflab.networks.towers.transformer import TransformerSpec
from difflab.text.base import Tokens
from golden_fixtures import Fixture, load
from networks.official_networks import build_target, guided_target

NAMES = ["glide_text2im_tiny", "glide_text2im_tiny_3level"]


@pytest.fixture(params=NAMES)
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return load("multimodal", request.param)


def models(fixture: Fixture) -> tuple[nn.Module, TextTransformerConditioner]:
    """The UNet and the conditioner of a fixture, with its weights."""
    args: dict[str, Any] = fixture.spec["args"]
    size = fixture.spec["inputs"]["x"]["shape"][-1]
    # GLIDE counts the factors of the grids with attention, as guided-diffusion's class does.
    target = guided_target(args | {"dropout": 0.0}, size)
    assert isinstance(target.network, UNetConfig)
    network = target.network.model_copy(update={"context_channels": args["xf_width"]})
    target = Target(network, size, learned_variance=True)
    unet = build_target(target)
    text = TextTransformerConditioner(
        Numbers(args["text_ctx"], args["n_vocab"]),
        TransformerSpec(args["xf_width"], args["xf_layers"], args["xf_heads"], 4 * args["xf_width"], "gelu"),
        vocabulary=args["n_vocab"],
        embedding_dim=4 * args["model_channels"],
        drop_rate=0.2,
    )
    official = fixture.state_dict()
    of_text = text_entries(args["xf_layers"], args["xf_heads"])
    names = {name for entry in of_text for name in entry.official}
    for module, entries in ((text, of_text), (unet, GUIDED.entries(unet.plan, shapes_of(unet.state_dict())))):
        keymap = KeyMap("glide", entries, shapes_of(module.state_dict()))
        own = {key: value for key, value in official.items() if (key in names) == (module is text)}
        module.load_state_dict(keymap.from_official(own))
        back = keymap.to_official(module.state_dict())
        assert all(torch.equal(back[key], value) for key, value in own.items())
    return unet, text.eval()


def test_output_and_gradient_are_glide_s(fixture: Fixture) -> None:
    unet, text = models(fixture)
    x = fixture.input("x").requires_grad_(True)
    conditioning = text.encoded(Tokens(fixture.input("tokens"), fixture.input("mask")))
    assert conditioning.vector is not None
    assert conditioning.tokens is not None
    fixture.check_close("xf_proj", conditioning.vector)
    fixture.check_close("xf_out", conditioning.tokens.transpose(1, 2))
    out = unet(x, fixture.input("timesteps").float(), conditioning)
    fixture.check_close("out", out)
    cotangent = torch.as_tensor(golden_cotangent(fixture, out))
    (gradient,) = torch.autograd.grad((out * cotangent).sum(), x)
    fixture.check_close("grad_x", gradient, "gradients")


def golden_cotangent(fixture: Fixture, out: Tensor) -> Any:
    from golden_fixtures import draw

    return draw(fixture.spec["seed"], "input:cotangent", tuple(out.shape), "input")


def test_the_dropped_caption_is_the_empty_one(fixture: Fixture) -> None:
    _, text = models(fixture)
    batch = {"index": torch.arange(3), "caption": ["1 2 3", "4", ""]}
    found = text(batch, torch.tensor([True, False, False]))
    empty, kept = text({"index": torch.arange(1), "caption": [""]}), text({"index": torch.arange(1), "caption": ["4"]})
    for field in ("vector", "tokens"):
        rows = getattr(found, field)
        torch.testing.assert_close(rows[:1], getattr(empty, field))
        torch.testing.assert_close(rows[2:], getattr(empty, field))
        torch.testing.assert_close(rows[1:2], getattr(kept, field))


def test_ids_that_the_loader_made_are_used() -> None:
    _, text = models(load("multimodal", NAMES[0]))
    ((field, tokenizer),) = text.tokenizers.items()
    tokens = tokenizer(["5 6", "7"])
    loaded = {"index": torch.arange(2), "caption": ["1", "1"], field: tokens.ids, f"{field}_mask": tokens.mask}
    expected = text({"index": torch.arange(2), "caption": ["5 6", "7"]})
    assert torch.equal(text(loaded).tokens, expected.tokens)
    assert torch.equal(text(loaded).vector, expected.vector)


def test_what_stands_after_a_caption_is_of_no_account() -> None:
    _, text = models(load("multimodal", NAMES[0]))
    ids, mask = torch.tensor([[3, 4, 9, 9, 9, 9, 9, 9]]), torch.tensor([[True] * 2 + [False] * 6])
    other = torch.where(mask, ids, 17)
    assert torch.equal(text.encoded(Tokens(ids, mask)).tokens, text.encoded(Tokens(other, mask)).tokens)


def test_negative_captions_are_the_null_in_place_of_the_empty_one() -> None:
    options = {"tokenizer": {"kind": "clip", "context_length": 8}, "width": 8, "layers": 1, "heads": 2}
    config = TextTransformerConditionerConfig.model_validate({"kind": "text_transformer", **options, "drop_rate": 0.1})
    torch.manual_seed(0)
    conditioners = build_conditioners({"caption": config}, embedding_dim=6, image_size=8).eval()
    # The ids of the captions are there already.
    field, tokenizer = next(iter(conditioners.tokenizers.items()))
    tokens = tokenizer(["a", "b"])
    batch = {"index": torch.arange(2), "caption": ["a", "b"], field: tokens.ids, f"{field}_mask": tokens.mask}
    null = conditioners.null({**batch, "negative_caption": ["a red circle", ""]})
    plain = {"index": torch.arange(2), "caption": ["a red circle", ""]}
    assert torch.equal(null.tokens, conditioners.conditioning(plain).tokens)
    assert torch.equal(null.tokens[1], conditioners.null(batch).tokens[1])
    assert not torch.equal(null.tokens[0], conditioners.null(batch).tokens[0])
