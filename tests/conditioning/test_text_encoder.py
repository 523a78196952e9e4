"""The frozen text encoder as a conditioner: what is projected, what is dropped, what comes from a cache."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from difflab.conditioning.build import build_conditioners
from difflab.conditioning.text.config import TextEncoderConditionerConfig
from difflab.conditioning.text.encoder import TextEncoderConditioner, TextStatesConditioner
from difflab.config.parts import FrozenConfig
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.networks.attention import Attention, AttentionSpec
from difflab.networks.layers import NormSpec
from difflab.networks.text_encoders.base import TextStates
from difflab.parts.loading import load_frozen
from difflab.parts.selection import count, exported, trained
from difflab.types import Batch, Conditioning
from text_encoder_folders import MODELS, bert

WIDTH, DIM, LENGTH = 10, 12, 18
KINDS = ("weight", "bias")
CAPTIONS = ["a small red circle", "two cats & a café", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "bert"
    bert(folder)
    return folder


def config_of(folder: Path, kind: str = "bert", **options: Any) -> TextEncoderConditionerConfig:
    given = {
        "kind": "text_encoder",
        "encoder": {"kind": kind, "weights": {"path": str(folder)}},
        "context_length": LENGTH,
        "width": WIDTH,
        "drop_rate": 0.2,
        **options,
    }
    return validate(TextEncoderConditionerConfig, given).described()


def conditioner_of(folder: Path, kind: str = "bert", **options: Any) -> TextEncoderConditioner:
    torch.manual_seed(0)
    built = build_conditioners({"caption": config_of(folder, kind, **options)}, embedding_dim=DIM, image_size=16)
    load_frozen(built)
    conditioner = built["caption"]
    assert isinstance(conditioner, TextEncoderConditioner)
    return conditioner.eval()


def batch_of(captions: Sequence[str] = CAPTIONS) -> Batch:
    return {"index": torch.arange(len(captions)), "caption": list(captions)}


def states_of(conditioner: TextEncoderConditioner, captions: Sequence[str] = CAPTIONS) -> TextStates:
    tokens = conditioner.tokenizer(captions)
    return conditioner.encoder(tokens.ids, tokens.mask)


def with_states(conditioner: TextEncoderConditioner, dtype: torch.dtype) -> Batch:
    states, field = states_of(conditioner), conditioner.cached_field
    cached = {field: states.tokens.to(dtype), f"{field}_pooled": states.pooled.to(dtype), f"{field}_mask": states.mask}
    return {**batch_of(["these are", "not", "read"]), **cached}


def assert_same(found: Conditioning, expected: Conditioning, **tolerance: float) -> None:
    assert found.fields().keys() == expected.fields().keys() == {"vector", "tokens", "token_mask"}
    for name, value in expected.fields().items():
        torch.testing.assert_close(found.fields()[name], value, **tolerance)


@pytest.mark.parametrize("kind", MODELS)
def test_states_are_normalized_and_projected(kind: str, tmp_path: Path) -> None:
    MODELS[kind](tmp_path)
    conditioner = conditioner_of(tmp_path, kind)
    made, states = conditioner(batch_of()), states_of(conditioner)
    norm = nn.functional.layer_norm(states.tokens, states.tokens.shape[-1:])
    torch.testing.assert_close(made.tokens, norm @ conditioner.projection.weight.T + conditioner.projection.bias)
    norm = nn.functional.layer_norm(states.pooled, states.pooled.shape[-1:])
    expected = norm @ conditioner.pooled_projection.weight.T + conditioner.pooled_projection.bias
    torch.testing.assert_close(made.vector, expected)
    assert torch.equal(made.token_mask, states.mask)
    assert made.tokens.shape == (3, LENGTH, WIDTH)
    assert made.vector.shape == (3, DIM)


def test_the_projections_alone_are_trained_and_written(folder: Path) -> None:
    conditioner = conditioner_of(folder)
    own = {f"{name}.{kind}" for name in ("norm", "projection", "pooled_norm", "pooled_projection") for kind in KINDS}
    assert set(trained(conditioner)) == set(exported(conditioner)) == own
    assert count(conditioner).elsewhere > 1000
    learned = conditioner_of(folder, null_condition="learned")
    assert set(trained(learned)) == own | {"null_tokens", "null_vector"}


def test_the_dropped_caption_is_the_empty_one(folder: Path) -> None:
    conditioner = conditioner_of(folder)
    found = conditioner(batch_of(), torch.tensor([True, False, False]))
    kept = conditioner(batch_of())
    assert_same(found[1:], kept[1:])
    assert_same(found[:1], kept[2:])


def test_a_learned_null_takes_the_place_of_the_dropped_caption(folder: Path) -> None:
    conditioner = conditioner_of(folder, null_condition="learned")
    dropped = torch.tensor([True, False, True])
    found, kept = conditioner(batch_of(), dropped), conditioner(batch_of())
    assert_same(found[1:2], kept[1:2])
    assert torch.equal(found.tokens[dropped], conditioner.null_tokens.expand(2, -1, -1))
    assert torch.equal(found.vector[dropped], conditioner.null_vector.expand(2, -1))
    assert found.token_mask[dropped].all()
    (found.tokens.sum() + found.vector.sum()).backward()
    assert conditioner.null_tokens.grad.abs().min() > 0


@pytest.mark.parametrize("null", ["empty", "learned"])
def test_without_the_pooled_state_the_tokens_are_the_same(null: str, folder: Path) -> None:
    whole, alone = (conditioner_of(folder, null_condition=null, pooled=pooled) for pooled in (True, False))
    assert set(trained(whole)) - set(trained(alone)) == {
        *(f"{name}.{kind}" for name in ("pooled_norm", "pooled_projection") for kind in KINDS),
        *(["null_vector"] if null == "learned" else []),
    }
    whole.load_state_dict(alone.state_dict(), strict=False)
    for dropped in (None, torch.tensor([True, False, True])):
        found, expected = alone(batch_of(), dropped), whole(batch_of(), dropped)
        assert found.fields().keys() == {"tokens", "token_mask"}
        assert torch.equal(found.tokens, expected.tokens)
        assert torch.equal(found.token_mask, expected.token_mask)


def test_ids_that_the_loader_made_are_used(folder: Path) -> None:
    conditioner = conditioner_of(folder)
    ((field, tokenizer),) = conditioner.tokenizers.items()
    tokens = tokenizer(CAPTIONS)
    loaded = {**batch_of(["x", "x", "x"]), field: tokens.ids, f"{field}_mask": tokens.mask}
    assert_same(conditioner(loaded), conditioner(batch_of()))


@pytest.mark.parametrize("null", ["empty", "learned"])
@pytest.mark.parametrize("dropped", [None, torch.tensor([False, True, False])])
def test_cached_states_are_used_in_place_of_the_encoder(null: str, dropped: Tensor | None, folder: Path) -> None:
    conditioner = conditioner_of(folder, null_condition=null)
    expected = conditioner(batch_of(), dropped)
    assert_same(conditioner(with_states(conditioner, torch.float32), dropped), expected, rtol=1e-6, atol=1e-6)
    halves = conditioner(with_states(conditioner, torch.float16), dropped)
    assert_same(halves, expected, rtol=5e-3, atol=5e-3)
    assert halves.tokens.dtype == torch.float32
    if dropped is None:
        assert torch.equal(conditioner(with_states(conditioner, torch.float32)).tokens, expected.tokens)


def test_the_field_of_a_cache_is_that_of_encoder_options_and_tokenizer(folder: Path, tmp_path: Path) -> None:
    field = conditioner_of(folder).cached_field
    assert field.startswith("caption_states_")
    assert field.endswith(f"_{LENGTH}")
    shutil.copytree(folder, tmp_path / "copy")
    assert conditioner_of(tmp_path / "copy").cached_field == field, "wherever the same files are"
    mean = {"encoder": {"kind": "bert", "weights": {"path": str(folder)}, "pooling": "mean"}}
    others = [conditioner_of(folder, **mean), conditioner_of(folder, context_length=9, too_long="truncate")]
    weights = load_file(folder / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, tmp_path / "copy" / "model.safetensors")
    others.append(conditioner_of(tmp_path / "copy"))
    assert len({field, *(other.cached_field for other in others)}) == 4


def test_the_network_does_not_attend_to_padding(folder: Path) -> None:
    conditioner = conditioner_of(folder)
    made = conditioner(batch_of())
    torch.manual_seed(0)
    attention = Attention(AttentionSpec(channels=8, heads=2, norm=NormSpec(groups=4, eps=1e-5), context_channels=WIDTH))
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    x, emb = torch.randn(3, 8, 4, 4), torch.zeros(3, DIM)
    other = torch.where(made.token_mask[..., None], made.tokens, 7.0)
    assert not torch.equal(other, made.tokens)
    torch.testing.assert_close(attention(x, emb, made, other), attention(x, emb, made, made.tokens))
    assert not torch.allclose(attention(x, emb, None, other), attention(x, emb, None, made.tokens), atol=0.1)


def test_it_is_recorded_what_the_files_say(folder: Path) -> None:
    given = validate(TextEncoderConditionerConfig, {**config_of(folder).plain(), "tokenizer": None})
    assert given.learns
    config = given.described()
    assert not config.learns
    assert config == config_of(folder)
    assert config.encoder.weights == FrozenConfig(path=str(folder / "model.safetensors"))
    assert config.encoder.plain()["architecture"]["hidden_size"] == 16
    assert config.tokenizer.plain()["file"]["path"] == str(folder / "tokenizer.json")
    assert validate(TextEncoderConditionerConfig, config.plain()) == config
    # From now on the other files are not asked again.
    assert config.described() == config


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"context_length": 41}, "context_length=41, but the text encoder takes at most 40 tokens"),
        ({"tokenizer": {"kind": "clip"}, "context_length": 77}, "context_length=77, but the text encoder takes"),
        ({"tokenizer": {"kind": "clip", "context_length": 18}}, "the tokenizer has 49408 token ids, but the text"),
        ({"tokenizer": {"kind": "clip"}}, "context_length=18 but tokenizer.context_length=77; set both alike"),
        ({"tokenizer": {"kind": "byte_pairs"}}, "tokenizer.kind=byte_pairs is learned from captions, but the encoder"),
        ({"encoder": {"kind": "bert", "weights": {}}}, "neither path, package nor hub is given"),
        ({"encoder": {"kind": "elmo", "weights": {}}}, "encoder.kind='elmo' is not known; choose one of 'bert', 't5'"),
        ({"width": None, "null_condition": "learned"}, "null_condition=learned needs a width"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], line: str, folder: Path) -> None:
    with pytest.raises(UserError) as refusal:
        config_of(folder, **options)
    assert line in str(refusal.value)
    assert "\n" not in str(refusal.value)


def states_conditioner(folder: Path, **options: Any) -> TextStatesConditioner:
    config = config_of(folder, width=None, **options)
    built = build_conditioners({"caption": config}, embedding_dim=DIM, image_size=16)
    load_frozen(built)
    conditioner = built["caption"]
    assert isinstance(conditioner, TextStatesConditioner)
    assert config.makes(3).widths == {"tokens": 16}
    return conditioner


def test_without_a_width_the_states_are_those_of_the_encoder(folder: Path) -> None:
    conditioner = states_conditioner(folder)
    assert not conditioner.state_dict()
    tokens = conditioner.tokenizer(CAPTIONS)
    expected = conditioner.encoder(tokens.ids, tokens.mask).tokens
    assert expected[~tokens.mask].abs().amin() > 0, "of padding too"
    made = conditioner(batch_of())
    assert made.fields().keys() == {"tokens"}
    assert torch.equal(made.tokens, expected)
    dropped = conditioner(batch_of(), torch.tensor([True, False, False]))
    assert torch.equal(dropped.tokens, expected[[2, 1, 2]])


def test_states_made_in_advance_are_the_same_without_a_width(folder: Path) -> None:
    conditioner = states_conditioner(folder)
    tokens = conditioner.tokenizer(CAPTIONS)
    states, field = conditioner.encoder(tokens.ids, tokens.mask), conditioner.cached_field
    cached = {field: states.tokens, f"{field}_pooled": states.pooled, f"{field}_mask": states.mask}
    batch = {**batch_of(["these are", "not", "read"]), **cached}
    dropped = torch.tensor([False, True, False])
    assert torch.equal(conditioner(batch).tokens, states.tokens)
    torch.testing.assert_close(conditioner(batch, dropped).tokens, conditioner(batch_of(), dropped).tokens)


def test_what_has_no_weights_of_its_own_goes_where_the_model_goes(folder: Path) -> None:
    conditioner = states_conditioner(folder).double()
    assert conditioner(batch_of()).tokens.dtype == torch.float64
