"""Layers that differ from torch's only in their initialisation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


class OutputConv2d(nn.Conv2d):
    """The last convolution of a residual branch or of the network, initialised to (almost) zero."""


class OutputLinear(nn.Linear):
    """The last projection of a residual branch, initialised to (almost) zero."""


class FusedLinear(nn.Linear):
    """`parts` projections of equal width in one matrix; each is initialised separately."""

    def __init__(self, in_features: int, out_features: int, parts: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features * parts, bias=bias)
        self.parts = parts


@dataclass(frozen=True)
class NormSpec:
    """The options of every GroupNorm of a network."""

    groups: int
    eps: float

    def build(self, channels: int) -> nn.GroupNorm:
        """Returns the norm over `channels` channels, which must be divisible by `groups`."""
        return nn.GroupNorm(self.groups, channels, eps=self.eps)
