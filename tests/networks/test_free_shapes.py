"""Sizes, channels, widths and class counts that no official list has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from difflab.networks.build import build_network
from difflab.networks.config import UNetConfig, UNetEncoderConfig
from difflab.types import Conditioning
from networks.small_networks import awake

TORSO = st.fixed_dictionaries(
    {
        "channels": st.integers(1, 5),
        "patch_size": st.sampled_from([1, 2]),
        "channel_mult": st.lists(st.sampled_from([0.5, 1, 1.5, 3]), min_size=1, max_size=3),
        "blocks_per_level": st.integers(1, 2),
        "adaptive_norm": st.booleans(),
        "resample": st.sampled_from(["asymmetric_conv", "symmetric_conv", "pool", "residual"]),
        "base_channels": st.just(8),
        "norm_groups": st.just(4),
        "attention_heads": st.sampled_from([1, 2, 4]),
    }
)


def grid(backbone: dict[str, Any]) -> int:
    return backbone["patch_size"] * 2 ** (len(backbone["channel_mult"]) - 1)


@settings(max_examples=15, deadline=None)
@given(
    TORSO,
    st.integers(2, 3),
    st.integers(2, 4),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([None, 1, 4]),
)
def test_a_unet_gives_back_the_shape_it_takes(
    backbone: dict[str, Any], tall: int, wide: int, concat: int, learned: bool, decoder_heads: int | None
) -> None:
    torch.manual_seed(0)
    multiple = grid(backbone)
    cfg = UNetConfig(**backbone, concat_channels=concat, decoder_attention_heads=decoder_heads)
    network = awake(build_network(cfg, image_size=multiple, learned_variance=learned))
    x = torch.randn(2, cfg.channels, tall * multiple, wide * multiple)
    joined = torch.randn(2, concat, *x.shape[2:]) if concat else None
    out = network(x, torch.tensor([1.0, 20.5]), Conditioning(concat=joined))
    assert out.shape == (2, cfg.channels * (2 if learned else 1), *x.shape[2:])
    assert out.isfinite().all()


@settings(max_examples=15, deadline=None)
@given(
    TORSO,
    st.integers(2, 3),
    st.integers(2, 4),
    st.integers(1, 13),
    st.sampled_from(["adaptive", "attention", "spatial", "spatial_v2"]),
)
def test_a_classifier_gives_a_logit_for_each_class(
    backbone: dict[str, Any], tall: int, wide: int, classes: int, pool: str
) -> None:
    torch.manual_seed(0)
    multiple = grid(backbone)
    cfg = UNetEncoderConfig.model_validate({"kind": "unet_encoder", "classes": classes, "pool": pool, **backbone})
    network = awake(build_network(cfg, image_size=tall * multiple, learned_variance=False))
    if pool == "attention":
        wide = tall
    x = torch.randn(2, cfg.channels, tall * multiple, wide * multiple, requires_grad=True)
    logits = network(x, torch.tensor([1.0, 20.5]))
    assert logits.shape == (2, classes)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize(("size", "channels"), [(40, 1), (96, 4)])
def test_an_adm_of_a_size_that_openai_has_not(size: int, channels: int) -> None:
    backbone = {
        "channels": channels,
        "base_channels": 32,
        "channel_mult": [0.5, 1, 2, 2],
        "blocks_per_level": 1,
        "attention_resolutions": [size // 4, size // 8],
        "attention_heads": None,
        "attention_head_channels": 16,
        "adaptive_norm": True,
        "resample": "residual",
        "time_embedding": "adm",
        "norm_groups": 8,
        "init": "adm",
    }
    x = torch.randn(1, channels, size, size)
    denoiser = build_network(UNetConfig.model_validate(backbone), image_size=size, learned_variance=True)
    assert denoiser(x, torch.zeros(1)).shape == (1, 2 * channels, size, size)
    cfg = UNetEncoderConfig.model_validate({"kind": "unet_encoder", "classes": 37, "pool": "attention", **backbone})
    assert build_network(cfg, image_size=size, learned_variance=False)(x, torch.zeros(1)).shape == (1, 37)
