"""Initialisation of a network's weights."""

from __future__ import annotations

from torch import nn

from difflab.config.axes import INITIALISATIONS
from difflab.networks.layers import FusedLinear, OutputConv2d, OutputLinear

_TINY = 1e-10
"""The scale of last layers in DDPM's code, used instead of 0."""


def initialise(network: nn.Module, kind: str) -> None:
    """Initialises every convolution and linear layer in place, by the method `kind` of `INITIALISATIONS`."""
    start = INITIALISATIONS.builder(kind)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            start(module, isinstance(module, OutputConv2d | OutputLinear))


def ddpm(module: nn.Conv2d | nn.Linear, last: bool) -> None:
    """Variance scaling with the average fan, uniform (scale 1e-10 in last layers), biases 0."""
    _variance_scaling(module, _TINY if last else 1.0)


def adm(module: nn.Conv2d | nn.Linear, last: bool) -> None:
    """torch's default; last layers 0."""
    if last:
        nn.init.zeros_(module.weight)
        _zero_bias(module)


def orthogonal(module: nn.Conv2d | nn.Linear, last: bool) -> None:
    """Orthogonal matrices (rows of a convolution flattened), biases 0, no small last layers."""
    nn.init.orthogonal_(module.weight)
    _zero_bias(module)


def _variance_scaling(module: nn.Conv2d | nn.Linear, scale: float) -> None:
    parts = module.parts if isinstance(module, FusedLinear) else 1
    for weight in module.weight.chunk(parts):
        nn.init.xavier_uniform_(weight, gain=scale**0.5)
    _zero_bias(module)


def _zero_bias(module: nn.Conv2d | nn.Linear) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)
