"""Networks small enough to run in a test, with weights that let every part be seen."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from difflab.networks.build import build_network
from difflab.networks.config import UNetConfig, UNetEncoderConfig
from difflab.networks.unet import UNet
from difflab.networks.unet_encoder import UNetEncoder

N = TypeVar("N", bound=nn.Module)

SMALL: dict[str, Any] = {
    "base_channels": 16,
    "channel_mult": [1, 2],
    "blocks_per_level": 1,
    "attention_resolutions": [8],
    "norm_groups": 8,
}


def small(learned_variance: bool = False, **options: Any) -> UNet:
    torch.manual_seed(0)
    network = build_network(UNetConfig(**SMALL | options), image_size=16, learned_variance=learned_variance)
    assert isinstance(network, UNet)
    return network


def small_encoder(pool: str = "attention", classes: int = 5, image_size: int = 16, **options: Any) -> UNetEncoder:
    torch.manual_seed(0)
    cfg = UNetEncoderConfig.model_validate(
        {"kind": "unet_encoder", "classes": classes, "pool": pool, **SMALL, **options}
    )
    network = build_network(cfg, image_size=image_size, learned_variance=False)
    assert isinstance(network, UNetEncoder)
    return network


def awake(network: N) -> N:
    """Redraw the layers that start at zero, so that every block shows in the output."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if parameter.ndim > 1 and parameter.abs().max() < 1e-3:
            parameter.data.normal_(std=0.1, generator=generator)
    return network


def inputs(batch: int = 2, size: int = 16, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, channels, size, size, generator=generator), torch.linspace(3, 900, batch)
