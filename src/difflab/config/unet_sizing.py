"""Derives options of a U-Net from the image size, for small presets that leave them open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEEPEST = 8
"""Approximate side length of the lowest resolution, which has attention."""
LARGEST_OF_TWO, LARGEST_OF_THREE = 80, 320
"""Pixels per side up to which two and three levels are used; larger images get four."""
MOST_GROUPS = 8


@dataclass(frozen=True)
class Sizing:
    """Options of a U-Net that suit its images; the caller decides which of them to use."""

    patch_size: int
    pad: bool
    channel_mult: list[float]
    attention_resolutions: list[int]
    norm_groups: int | None

    @classmethod
    def of(cls, values: Mapping[str, Any], image_size: int) -> Sizing:
        """Options that suit `image_size` and the given values: null values are derived from the others.

        The core resolutions are about 16x16 and 8x8 for any image size: patches of up to 5x5 pixels and, for images
        above 80 pixels, more levels at finer resolutions, each half as wide. Invalid values are left to the validation.
        """
        mult = values.get("channel_mult")
        levels = len(mult) if isinstance(mult, list) and mult else None
        attended = [grid for grid in values.get("attention_resolutions") or () if isinstance(grid, int)]
        patch = values.get("patch_size")
        if not isinstance(patch, int) or patch < 1:
            patch = _best_patch(image_size, levels or _levels_for(image_size), attended)
        levels = levels or _levels_below(-(-image_size // patch))
        padded = _padded(image_size, patch, levels)
        deepest = padded // patch // 2 ** (levels - 1)
        factors = mult if isinstance(mult, list) and mult else _factors(levels)
        return cls(
            patch_size=patch,
            pad=padded != image_size,
            channel_mult=factors,
            attention_resolutions=[deepest] if deepest <= 2 * DEEPEST else [],
            norm_groups=_groups(values.get("base_channels"), factors),
        )


def _levels_for(image_size: int) -> int:
    return 2 if image_size <= LARGEST_OF_TWO else 3 if image_size <= LARGEST_OF_THREE else 4


def _levels_below(grid: int) -> int:
    """The number of levels for a lowest resolution of about 8x8; at least two, if there is anything to halve."""
    levels = 1 if grid < 4 else 2
    while -(-grid // 2 ** (levels - 1)) > DEEPEST + 2:
        levels += 1
    return levels


def _factors(levels: int) -> list[float]:
    """A level of twice the resolution and half the width takes as long as the one below it."""
    return [0.5] * (levels - 2) + [1, 1.5] if levels > 1 else [1]


def _padded(image_size: int, patch: int, levels: int) -> int:
    multiple = patch * 2 ** (levels - 1)
    return -(-image_size // multiple) * multiple


def _best_patch(image_size: int, levels: int, attended: Sequence[int]) -> int:
    """The patch size that yields the attended resolutions, a first resolution close to ideal, and a small border."""
    ideal = DEEPEST * 2 ** (levels - 1)

    def misfit(patch: int) -> tuple[int, bool, float]:
        padded = _padded(image_size, patch, levels)
        first = padded // patch
        absent = sum(grid not in [first // 2**level for level in range(levels)] for grid in attended)
        is_far = first > 1.25 * ideal or (first < 0.6 * ideal and patch > 1)
        return absent, is_far, padded / image_size - 1 + 0.1 * abs(math.log2(first / ideal))

    return min(range(1, max(image_size // 4, 1) + 1), key=misfit)


def _groups(base: object, factors: Sequence[float]) -> int | None:
    """The largest number of groups, up to 8, that divides every level; None if the widths are not numbers."""
    if not isinstance(base, int) or not all(isinstance(factor, int | float) for factor in factors):
        return None
    common = math.gcd(base, *(int(base * factor) for factor in factors))
    return next((groups for groups in range(MOST_GROUPS, 0, -1) if common and common % groups == 0), None)
