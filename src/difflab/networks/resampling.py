"""How a U-Net halves and doubles its grid between levels, by the names used in its configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from difflab.networks.registry import BlockSpec
from difflab.networks.resample import DownSpec, UpSpec


class Blocks(Protocol):
    """The factory of one network's blocks."""

    def residual(
        self, in_channels: int, out_channels: int, resample: Literal["down", "up"] | None = None
    ) -> BlockSpec: ...


@dataclass(frozen=True)
class Resampling:
    """Functions (block factory, channels) -> the specification of a block that halves, or doubles, the grid."""

    down: Callable[[Blocks, int], BlockSpec]
    up: Callable[[Blocks, int], BlockSpec]


ASYMMETRIC_CONV = Resampling(
    lambda blocks, channels: DownSpec(channels, "asymmetric"), lambda blocks, channels: UpSpec(channels)
)
"""A strided convolution padded right and below, and nearest + convolution (DDPM)."""

SYMMETRIC_CONV = Resampling(
    lambda blocks, channels: DownSpec(channels, "symmetric"), lambda blocks, channels: UpSpec(channels)
)
"""The same padded on all sides."""

POOL = Resampling(
    lambda blocks, channels: DownSpec(channels, "pool"), lambda blocks, channels: UpSpec(channels, conv=False)
)
"""The mean of 2x2, and nearest, without weights."""

RESIDUAL = Resampling(
    lambda blocks, channels: blocks.residual(channels, channels, "down"),
    lambda blocks, channels: blocks.residual(channels, channels, "up"),
)
"""Inside a residual block (BigGAN, ADM)."""
