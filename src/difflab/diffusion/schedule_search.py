"""Which levels a sampler of few steps visits, found by trying: a grid of smooth schedules, then level by level.

SR3 (section 2.4) and WaveGrad try linear schedules over their start and end; a model is not trained anew for it.
Nothing is drawn at random here: the same scores lead to the same candidates, so that a search that was stopped goes on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from difflab.diffusion.levels.sigmas import exponential_sigmas, karras_sigmas

SHAPES = ("exponential", "linear_beta", "karras7", "karras3")
"""How levels lie between their ends; linear_beta is what SR3 and WaveGrad try: evenly spaced betas of as many steps."""

DIGITS = 6
"""Of every noise: a candidate is what is printed of it."""

LEAST_MOVE = 1 / 32
"""Of the way to the next level: smaller moves of a level are not tried."""

_GOLDEN_PLANE = 0.7548776662466927, 0.5698402909980532
# Multiples of these, modulo 1, fill the square evenly however many are taken (Roberts' R2 sequence).


@dataclass(frozen=True)
class Candidate:
    """sigmas: sigma / alpha from the noisiest down. origin: how they were found, in words."""

    sigmas: tuple[float, ...]
    origin: str


Search = Generator[Candidate, float, None]
"""Yields candidates; is sent the score of each, of which lower is better."""


def schedule_search(
    start: Sequence[float], score: float, ends: tuple[float, float], *, grid: int, fixed: int = 0
) -> Search:
    """Candidates, none twice, and never `start`: `grid` smooth ones, then the best of all with one level moved.

    start: sigmas of the default schedule, from the noisiest down, and their score.
    ends: the lowest and the highest noise that are worth trying; `start` may lie beyond them.
    fixed: how many of the first sigmas every candidate has too (pure noise, where there is no other place to begin).

    It ends where no level can be moved any more for the better.
    """
    best, lowest = tuple(map(_rounding((0.0, math.inf)), start)), score
    seen = {best}
    for candidate in itertools.islice(_new(_smooth(best, ends, fixed), seen), grid):
        got = yield candidate
        if got < lowest:
            best, lowest = candidate.sigmas, got
    step = 0.5
    while step >= LEAST_MOVE:
        before = lowest
        for place, way in itertools.product(range(fixed, len(start)), (-1, 1)):
            for candidate in _new(_moved(best, place, way * step, ends, fixed), seen):
                got = yield candidate
                if got < lowest:
                    best, lowest = candidate.sigmas, got
        if lowest == before:
            step /= 2


def _new(candidates: Iterator[Candidate], seen: set[tuple[float, ...]]) -> Iterator[Candidate]:
    for candidate in candidates:
        falls = all(here > there for here, there in itertools.pairwise(candidate.sigmas))
        if falls and candidate.sigmas not in seen:
            seen.add(candidate.sigmas)
            yield candidate


def _smooth(start: Sequence[float], ends: tuple[float, float], fixed: int) -> Iterator[Candidate]:
    """Smooth schedules whose ends fill the sigmas that are worth visiting evenly, in the logarithm."""
    kept, n = tuple(start[:fixed]), len(start) - fixed
    (low, high), tries = ends, 64 * (len(SHAPES) + 1)
    for count in range(tries if n else 0):
        across, up = ((0.5 + count * share) % 1.0 for share in _GOLDEN_PLANE)
        # The last step of few ends well where noise is still to be seen, and the first begins where no signal is.
        first = _between(math.sqrt(low * high), high, up)
        last = first if n == 1 else _between(low, math.sqrt(low * high), across)
        shape = SHAPES[count % len(SHAPES)]
        sigmas = shaped(shape, n, last, first)
        if sigmas is not None:
            yield Candidate((*kept, *map(_rounding(ends), sigmas)), f"{shape} {first:.3g} to {last:.3g}")


def _between(low: float, high: float, share: float) -> float:
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


def shaped(shape: str, n: int, lowest: float, highest: float) -> list[float] | None:
    """`n` sigmas of one of SHAPES between their ends, from the noisiest down; None where it has none such."""
    if n == 1 or shape == "exponential":
        return exponential_sigmas(n, lowest, highest).tolist()
    if shape == "linear_beta":
        return linear_beta_sigmas(n, lowest, highest)
    return karras_sigmas(n, lowest, highest, float(shape.removeprefix("karras"))).tolist()


def linear_beta_sigmas(n: int, lowest: float, highest: float) -> list[float] | None:
    """Sigmas of the n rows of betas that rise linearly, from the noisiest down; None where betas would fall.

    The first beta leaves the lowest noise, the last is such that alpha_bar ends at the highest.
    """
    first = lowest**2 / (1.0 + lowest**2)

    def of(last: float) -> np.ndarray:
        alphas_cumprod = np.cumprod(1.0 - np.linspace(first, last, n))
        return np.sqrt(1.0 / alphas_cumprod - 1.0)

    low, high = first, 1.0 - 1e-12
    if not of(low)[-1] <= highest <= of(high)[-1]:
        return None
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if of(middle)[-1] < highest else (low, middle)
    return of(low)[::-1].tolist()


def _moved(
    sigmas: tuple[float, ...], place: int, move: float, ends: tuple[float, float], fixed: int
) -> Iterator[Candidate]:
    """One level, moved by a share of the way to its neighbour: up where `move` is above 0."""
    above = sigmas[place - 1] if place > fixed else ends[1]
    below = sigmas[place + 1] if place + 1 < len(sigmas) else ends[0]
    here = sigmas[place]
    up, down = math.log(above / here), math.log(here / below)
    outward = place == fixed if move > 0 else place == len(sigmas) - 1
    # From the outermost levels it may be far to the end, and half of that way no small move.
    way = min(up, down) if outward else up if move > 0 else down
    if way > 0:
        moved = _rounding(ends)(here * math.exp(move * way))
        where = f"level {place + 1} {'up' if move > 0 else 'down'} to {moved:.3g}"
        yield Candidate((*sigmas[:place], moved, *sigmas[place + 1 :]), where)


def _rounding(ends: tuple[float, float]) -> Callable[[float], float]:
    """A noise as it is printed, within the ends."""

    def rounded(sigma: float) -> float:
        return float(f"{min(max(sigma, ends[0]), ends[1]):.{DIGITS}g}")

    return rounded
