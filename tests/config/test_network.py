from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from difflab.conf_dir import conf_dir
from difflab.config.network import UNetConfig

CHOICES = sorted((conf_dir() / "network").glob("*.yaml"))
SMALL: dict[str, Any] = {"base_channels": 32, "channel_mult": [1, 2], "blocks_per_level": 1}


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: path.stem)
def test_every_choice_shows_every_option(path: Any) -> None:
    content = yaml.safe_load(path.read_text())
    assert list(content) == list(UNetConfig.model_fields)
    UNetConfig.model_validate(content)


def test_derived_numbers() -> None:
    cfg = UNetConfig(base_channels=64, channel_mult=[0.5, 1, 2], blocks_per_level=[1, 2, 3], patch_size=2)
    assert cfg.widths == [32, 64, 128]
    assert cfg.depths == [1, 2, 3]
    assert cfg.embedding_channels == 256
    assert cfg.size_multiple == 8
    assert UNetConfig(**SMALL).depths == [1, 1]


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
