from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from difflab.config.axes import NETWORKS
from difflab.config.groups import choices_of, contents
from difflab.config.network import NetworkConfig
from difflab.networks.config import UNetConfig, UNetEncoderConfig

SMALL: dict[str, Any] = {"base_channels": 32, "channel_mult": [1, 2], "blocks_per_level": 1}
CLASSIFIER: dict[str, Any] = {**SMALL, "kind": "unet_encoder", "classes": 10, "pool": "attention"}


@pytest.mark.parametrize("choice", choices_of("network"))
def test_every_choice_shows_every_option(choice: str) -> None:
    content = contents("network", choice)
    assert content is not None
    kind = NETWORKS[content["kind"]]
    assert set(content) == set(kind.config.model_fields)
    if kind.name == "unet_encoder":
        assert content["classes"] == "${data.classes}"
        content["classes"] = 10
    content = {key: 3 if value == "${data.channels}" else value for key, value in content.items()}
    if isinstance(text := content.get("text"), dict):
        sizes = {"${tokenizer.context_length}": 77, "${tokenizer.vocabulary}": 2048}
        content["text"] = {key: sizes.get(value, value) for key, value in text.items()}
    content |= kind.config.fitted(content, 32, 3)
    assert TypeAdapter(NetworkConfig).validate_python(content).kind == kind.name


def test_derived_numbers() -> None:
    cfg = UNetConfig(base_channels=64, channel_mult=[0.5, 1, 2], blocks_per_level=[1, 2, 3], patch_size=2)
    assert cfg.widths == [32, 64, 128]
    assert cfg.depths == [1, 2, 3]
    assert cfg.embedding_channels == 256
    assert cfg.size_multiple == 8
    assert UNetConfig(**SMALL).depths == [1, 1]
    assert UNetEncoderConfig(**CLASSIFIER).embedding_channels == 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks_per_level": [1, 2, 3]}, "blocks_per_level has 3 entries and channel_mult 2"),
        ({"attention_heads": 2, "attention_head_channels": 8}, "exactly one of attention_heads"),
        ({"attention_heads": None}, "exactly one of attention_heads"),
        ({"base_channels": 33, "norm_groups": 1}, "base_channels=33 must be even"),
        ({"base_channels": 48}, "48 channels cannot be normalised in norm_groups=32"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropuot": 0.1}, "dropuot"),
        ({"resample": "conv"}, "resample"),
        ({"channel_mult": []}, "channel_mult"),
        ({"patch_size": 0}, "patch_size"),
    ],
)
def test_impossible_networks_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        UNetConfig(**SMALL | change)
    with pytest.raises(ValidationError, match=message):
        UNetEncoderConfig(**CLASSIFIER | change)


def test_the_decoder_counts_heads_only_where_the_encoder_does() -> None:
    assert UNetConfig(**SMALL, attention_heads=2, decoder_attention_heads=4).decoder_attention_heads == 4
    with pytest.raises(ValidationError, match=r"decoder_attention_heads=4 needs attention_heads, .*head_channels=8"):
        UNetConfig(**SMALL, attention_heads=None, attention_head_channels=8, decoder_attention_heads=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": None}, "the data has no classes; set data.classes to their number"),
        ({"classes": 0}, "classes"),
        ({"pool": "mean"}, "pool"),
        ({"concat_channels": 0}, "concat_channels"),
        ({"skip_scale": 1.0}, "skip_scale"),
        ({"decoder_attention_heads": None}, "decoder_attention_heads"),
    ],
)
def test_impossible_classifiers_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        UNetEncoderConfig(**CLASSIFIER | change)


@pytest.mark.parametrize("cfg", [UNetConfig(**SMALL), UNetEncoderConfig(**CLASSIFIER)], ids=lambda cfg: cfg.kind)
def test_kind_tells_them_apart_after_storing(cfg: Any) -> None:
    assert TypeAdapter(NetworkConfig).validate_python(cfg.model_dump()) == cfg
