"""A part of a sampler's way: from a noised or inverted image, to a noise level, around a known region, up and down."""

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
"""How far the sigma of a level may be from one that is visited: what is left out in a message."""


@dataclass(frozen=True, eq=False)
class Part:
    """What is different from drawing all the way from pure noise; by default nothing is.

    start:      the share of the sampler's steps that is kept, in (0, 1], counted as diffusers' `strength`:
                int(steps * start), the last ones. Or a level that the sampler visits, where sampling begins.
    image:      [B, ...], in the range of x0: x begins with it at the first level that is kept, with the noise that the
                sampler is called with (SDEdit, Meng et al. 2022). start=1 is pure noise to the bit whatever the image
                is; so it is not q(x_T | image) where a schedule ends with signal left (diffusers' image-to-image begins
                there; give the first level itself as start for that). Without an image, x is what the sampler is
                called with: x at the first level that is kept, as an earlier stage left it.
    inverted:   the image is brought there by DDIM inversion and not by noise, also with start=1.
    end:        the share of the steps that is left out at the end, in [0, 1), counted in the same way, so that
                end=0.3 leaves just what start=0.3 takes. Or a level that the sampler visits, where sampling ends.
    region:     what of an image is known and has to stay.
    resampling: RePaint's jumps back up, within the steps that are taken.

    Raises ValueError for shares out of range and for inverted without an image.
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
        """Whether an image plays no role where sampling begins: all steps are kept, and nothing is inverted."""
        return self.image is None or (not self.inverted and self.start == 1.0)

    def bounds(self, steps: Sequence[StepContext]) -> tuple[int, int]:
        """(first, last): of a sampler's own steps those from first up to last, exclusive, are taken.

        Raises ValueError where none are left, and for a level that is not visited.
        """
        n = len(steps)
        first = _place(steps, self.start, "start") if isinstance(self.start, NoiseLevel) else n - _share(n, self.start)
        last = _place(steps, self.end, "end") if isinstance(self.end, NoiseLevel) else n - _share(n, self.end)
        if first == n > 0:
            raise ValueError(f"start={_named(self.start)} keeps none of {n} steps: take {_enough(n):g} or more")
        if last == n and not isinstance(self.end, NoiseLevel) and self.end > 0:
            raise ValueError(f"end={self.end:g} leaves out none of {n} steps: take {_enough(n):g} or more, or 0")
        if n > 0 and first >= last:
            raise ValueError(
                f"start={_named(self.start)} and end={_named(self.end)} leave none of {n} steps: end further down"
            )
        return first, last

    def visits(self, steps: Sequence[StepContext]) -> list[Visit]:
        """The steps that are taken of a sampler's own, in their order, counted anew."""
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
    """One step of a state.

    place:   which of the sampler's own steps it is.
    context: what the denoiser and the hook are told; its index counts the steps of this state.
    climbed: the levels that x is noised up through before it, the first being where x is; empty without a jump.
    """

    place: int
    context: StepContext
    climbed: tuple[NoiseLevel, ...] = ()


def _share(n: int, share: float) -> int:
    # As diffusers' get_timesteps has it, rounding of the product included.
    return min(int(n * share), n)


def _enough(n: int) -> float:
    """The smallest share, in hundredths or finer, that keeps a step."""
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
