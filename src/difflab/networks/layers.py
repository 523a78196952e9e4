"""Layers that differ from torch's only in how they are initialised."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


class OutputConv2d(nn.Conv2d):
    """The last convolution of a residual branch or of the network, which starts at (almost) zero."""


class OutputLinear(nn.Linear):
    """The last projection of a residual branch, which starts at (almost) zero."""


class FusedLinear(nn.Linear):
    """`parts` projections of equal width in one matrix; each is initialised as if it stood alone."""

    def __init__(self, in_features: int, out_features: int, parts: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features * parts, bias=bias)
        self.parts = parts


@dataclass(frozen=True)
class NormSpec:
    """Every GroupNorm of a network."""

    groups: int
    eps: float

    def build(self, channels: int) -> nn.GroupNorm:
        """The norm over `channels` channels, which `groups` must divide."""
        return nn.GroupNorm(self.groups, channels, eps=self.eps)
