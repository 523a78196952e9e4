"""Partial sampling: from a noised or inverted image, to a noise level, around a known region, with resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

from difflab.diffusion.known_region import KnownRegion
from difflab.diffusion.samplers.resampling import Resampling
from difflab.types import NoiseLevel, StepContext

AS_PRINTED = 1e-5
"""Relative tolerance between a given sigma and a visited one: the digits that messages do not print."""


@dataclass(frozen=True, eq=False)
class Part:
    """How a sampling run differs from the full one from pure noise; by default not at all.

    start:      the fraction of the sampler's steps that is kept, in (0, 1], counted as diffusers' `strength`:
                the last int(steps * start) steps. Or a level that the sampler visits, where sampling begins.
    image:      [B, ...], in the range of x0: x is initialised with it at the first level that is kept, with the noise
                that the sampler is called with (SDEdit, Meng et al. 2022). start=1 is bitwise pure noise whatever the
                image; it is not q(x_T | image) if a schedule ends with signal left (diffusers' image-to-image begins
                there; pass the first level itself as start for that). Without an image, x is the argument of the call:
                x at the first level that is kept, as an earlier stage left it.
    inverted:   encode the image by DDIM inversion instead of adding noise, also with start=1.
    end:        the fraction of the steps that is left out at the end, in [0, 1), counted in the same way, so that
                end=0.3 leaves exactly what start=0.3 takes. Or a level that the sampler visits, where sampling ends.
    region:     the known region of an image, which is kept.
    resampling: RePaint's jumps back up, within the steps that are taken.

    Raises ValueError if a fraction is out of range, or if inverted is set without an image.
    """

    start: float | NoiseLevel = 1.0
    image: Tensor | None = None
    inverted: bool = False
    end: float | NoiseLevel = 0.0
    region: KnownRegion | None = None
    resampling: Resampling | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.start, NoiseLevel) and not 0 < self.start <= 1:
            raise ValueError(f"start={self.start:g} must be above 0 and at most 1, the share of the steps that is kept")
        if not isinstance(self.end, NoiseLevel) and not 0 <= self.end < 1:
            raise ValueError(f"end={self.end:g} must be 0 or more and below 1, the share of the steps left out")
        if self.inverted and self.image is None:
            raise ValueError("inverted=true needs the image to invert")

    @property
    def from_noise(self) -> bool:
        """Whether sampling starts from pure noise: all steps are kept, and nothing is inverted."""
        return self.image is None or (not self.inverted and self.start == 1.0)

    def bounds(self, steps: Sequence[StepContext]) -> tuple[int, int]:
        """Returns (first, last): the sampler's own steps from first up to last, exclusive, are taken.

        Raises ValueError if none are left, or if a level is not visited.
        """
        n = len(steps)
        first = _place(steps, self.start, "start") if isinstance(self.start, NoiseLevel) else n - _share(n, self.start)
        last = _place(steps, self.end, "end") if isinstance(self.end, NoiseLevel) else n - _share(n, self.end)
        if first == n > 0:
            raise ValueError(f"start={_named(self.start)} keeps none of {n} steps: set {_enough(n):g} or more")
        if last == n and not isinstance(self.end, NoiseLevel) and self.end > 0:
            raise ValueError(f"end={self.end:g} leaves out none of {n} steps: set {_enough(n):g} or more, or 0")
        if n > 0 and first >= last:
            raise ValueError(
                f"start={_named(self.start)} and end={_named(self.end)} leave none of {n} steps: end further down"
            )
        return first, last

    def visits(self, steps: Sequence[StepContext]) -> list[Visit]:
        """Returns the steps taken out of the sampler's own, in order, counted anew."""
        first, last = self.bounds(steps)
        times = (self.resampling or Resampling(resamplings=1)).times(last - first)
        places = [last - 1 - time for time in times]
        taken: list[tuple[int, tuple[NoiseLevel, ...]]] = []
        climb: list[NoiseLevel] = []
        for here, there in pairwise(places):
            if there < here:
                climb = [*(climb or [steps[here].level]), steps[there].level]
            else:
                taken.append((here, tuple(climb)))
                climb = []
        return [
            Visit(place, replace(steps[place], index=index, n_steps=len(taken)), climbed)
            for index, (place, climbed) in enumerate(taken)
        ]


@dataclass(frozen=True)
class Visit:
    """One step of a sampling run.

    place:   its index among the sampler's own steps.
    context: what the denoiser and the hook receive; its index counts the steps of this run.
    climbed: the levels through which x is noised before it, the first being the level of x; empty without a jump.
    """

    place: int
    context: StepContext
    climbed: tuple[NoiseLevel, ...] = ()


def _share(n: int, share: float) -> int:
    # As in diffusers' get_timesteps, including the rounding of the product.
    return min(int(n * share), n)


def _enough(n: int) -> float:
    """Returns the smallest fraction, in hundredths or finer, that keeps a step."""
    digits = max(2, math.ceil(math.log10(n)))
    return math.ceil(10**digits / n) / 10**digits


def _place(steps: Sequence[StepContext], level: NoiseLevel, name: str) -> int:
    visited = [*(step.level for step in steps), steps[-1].next_level]
    for place, one in enumerate(visited):
        if one.edm_sigma == level.edm_sigma or math.isclose(one.edm_sigma, level.edm_sigma, rel_tol=AS_PRINTED):
            return place
    nearest = sorted(visited, key=lambda one: abs(math.atan(one.edm_sigma) - math.atan(level.edm_sigma)))[:2]
    raise ValueError(
        f"{name}: the sampler visits no level with {_named(level)}; next to it are {' and '.join(map(_named, nearest))}"
    )


def _named(point: float | NoiseLevel) -> str:
    if not isinstance(point, NoiseLevel):
        return f"{point:g}"
    return f"sigma {point.edm_sigma:g}" + ("" if point.timestep is None else f" (timestep {point.timestep:g})")
