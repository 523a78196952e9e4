"""Searches for the levels of a sampler with few steps: first a grid of smooth schedules, then one level at a time.

SR3 (section 2.4) and WaveGrad search over the start and end of linear schedules, without retraining the model.
The search is deterministic: the same scores lead to the same candidates, so an interrupted search can be resumed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from difflab.diffusion.levels.sigmas import exponential_sigmas, karras_sigmas

SHAPES = ("exponential", "linear_beta", "karras7", "karras3")
"""Spacings between the ends; linear_beta, as in SR3 and WaveGrad, has evenly spaced betas of as many steps."""

DIGITS = 6
"""Significant digits of every sigma: a candidate is exactly what is printed."""

LEAST_MOVE = 1 / 32
"""Smallest move of a level, as a fraction of the distance to the next level."""

_GOLDEN_PLANE = 0.7548776662466927, 0.5698402909980532
# Multiples of these, modulo 1, cover the square evenly for any number of points (Roberts' R2 sequence).


@dataclass(frozen=True)
class Candidate:
    """sigmas: sigma / alpha, noisiest first. origin: a description of how they were found."""

    sigmas: tuple[float, ...]
    origin: str


Search = Generator[Candidate, float, None]
"""Yields candidates and receives the score of each; lower is better."""


def schedule_search(
    start: Sequence[float], score: float, ends: tuple[float, float], *, grid: int, fixed: int = 0
) -> Search:
    """Yields distinct candidates, never `start`: `grid` smooth schedules, then the best so far with one level moved.

    start: sigmas of the default schedule, noisiest first, and `score`, its score.
    ends: lowest and highest sigma worth trying; `start` may lie beyond them.
    fixed: number of leading sigmas shared by every candidate (pure noise, the only possible start).

    Ends when moving no single level improves the score.
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
    """Yields smooth schedules whose ends cover the useful range of sigmas evenly in the logarithm."""
    kept, n = tuple(start[:fixed]), len(start) - fixed
    (low, high), tries = ends, 64 * (len(SHAPES) + 1)
    for count in range(tries if n else 0):
        across, up = ((0.5 + count * share) % 1.0 for share in _GOLDEN_PLANE)
        # With few steps a good last level still has visible noise, and a good first level has no signal.
        first = _between(math.sqrt(low * high), high, up)
        last = first if n == 1 else _between(low, math.sqrt(low * high), across)
        shape = SHAPES[count % len(SHAPES)]
        sigmas = shaped(shape, n, last, first)
        if sigmas is not None:
            yield Candidate((*kept, *map(_rounding(ends), sigmas)), f"{shape} {first:.3g} to {last:.3g}")


def _between(low: float, high: float, share: float) -> float:
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


def shaped(shape: str, n: int, lowest: float, highest: float) -> list[float] | None:
    """Returns `n` sigmas of one of SHAPES between the ends, noisiest first; None if the shape has no such schedule."""
    if n == 1 or shape == "exponential":
        return exponential_sigmas(n, lowest, highest).tolist()
    if shape == "linear_beta":
        return linear_beta_sigmas(n, lowest, highest)
    return karras_sigmas(n, lowest, highest, float(shape.removeprefix("karras"))).tolist()


def linear_beta_sigmas(n: int, lowest: float, highest: float) -> list[float] | None:
    """Returns sigmas of n rows of linearly increasing betas, noisiest first; None if betas would decrease.

    The first beta gives the lowest sigma, and the last is chosen so that alpha_bar ends at the highest.
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
    """Yields the sigmas with one level moved by a fraction of the distance to its neighbour: up if `move` > 0."""
    above = sigmas[place - 1] if place > fixed else ends[1]
    below = sigmas[place + 1] if place + 1 < len(sigmas) else ends[0]
    here = sigmas[place]
    up, down = math.log(above / here), math.log(here / below)
    outward = place == fixed if move > 0 else place == len(sigmas) - 1
    # The outermost levels may be far from the ends, where half of that distance would be a large move.
    way = min(up, down) if outward else up if move > 0 else down
    if way > 0:
        moved = _rounding(ends)(here * math.exp(move * way))
        where = f"level {place + 1} {'up' if move > 0 else 'down'} to {moved:.3g}"
        yield Candidate((*sigmas[:place], moved, *sigmas[place + 1 :]), where)


def _rounding(ends: tuple[float, float]) -> Callable[[float], float]:
    """Rounds a sigma to what is printed, within the ends."""

    def rounded(sigma: float) -> float:
        return float(f"{min(max(sigma, ends[0]), ends[1]):.{DIGITS}g}")

    return rounded
