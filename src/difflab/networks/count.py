"""Counts a network's parameters without allocating them."""

from __future__ import annotations

import torch
from torch import nn

from difflab.config.network import NetworkConfig
from difflab.networks.build import build_network


def count_parameters(module: nn.Module, trainable_only: bool = False) -> int:
    """Returns the number of parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)


def meta_network(cfg: NetworkConfig, *, image_size: int, learned_variance: bool) -> nn.Module:
    """Returns the network on the meta device: keys and shapes, no storage."""
    with torch.device("meta"):
        return build_network(cfg, image_size=image_size, learned_variance=learned_variance)
