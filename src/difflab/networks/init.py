"""How a network's weights start."""

from __future__ import annotations

from typing import Literal

from torch import nn

from difflab.networks.layers import FusedLinear, OutputConv2d, OutputLinear

_TINY = 1e-10
"""The scale that DDPM's code gives to last layers in place of 0."""


def initialise(network: nn.Module, kind: Literal["ddpm", "adm", "orthogonal"]) -> None:
    """Initialise in place.

    ddpm: variance scaling with the average fan, uniform (scale 1e-10 in last layers), biases 0.
    adm:  as torch does; last layers 0.
    orthogonal: every matrix (a convolution's with its rows flattened), biases 0, no last layer small.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        last = isinstance(module, OutputConv2d | OutputLinear)
        if kind == "ddpm":
            _variance_scaling(module, _TINY if last else 1.0)
        elif kind == "orthogonal":
            nn.init.orthogonal_(module.weight)
            _zero_bias(module)
        elif last:
            nn.init.zeros_(module.weight)
            _zero_bias(module)


def _variance_scaling(module: nn.Conv2d | nn.Linear, scale: float) -> None:
    parts = module.parts if isinstance(module, FusedLinear) else 1
    for weight in module.weight.chunk(parts):
        nn.init.xavier_uniform_(weight, gain=scale**0.5)
    _zero_bias(module)


def _zero_bias(module: nn.Conv2d | nn.Linear) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)
