"""Interleaved timing: neighbours in time are compared, so that what else the machine does cancels out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, NamedTuple

import numpy as np

Step = Callable[[], object]
Clock = Literal["wall", "cpu"]


class Lap(NamedTuple):
    """Seconds on the wall, and of this process's own computing on all its threads: what a busy machine leaves alone."""

    wall: float
    cpu: float


class Stopwatch:
    """Both clocks since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def lap(self, steps: int = 1) -> Lap:
        """Seconds a step."""
        return Lap((time.perf_counter() - self._wall) / steps, (time.process_time() - self._cpu) / steps)


@dataclass(frozen=True)
class Spread:
    """The middle and the reach of some measurements."""

    median: float
    q1: float
    q3: float
    min: float
    max: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError where there is nothing to describe."""
        if not values:
            raise ValueError("no round was measured; ask for at least one besides the warm-up")
        q1, median, q3 = np.percentile(values, [25, 50, 75]).tolist()
        return cls(median, q1, q3, min(values), max(values), len(values))

    def scaled(self, factor: float) -> Spread:
        """The same in another unit."""
        return Spread(*(factor * v for v in (self.median, self.q1, self.q3, self.min, self.max)), self.n)


@dataclass
class Rounds:
    """What each contender took in each round. A ratio is taken inside a round, then its median over the rounds."""

    laps: list[dict[str, Lap]] = field(default_factory=list)

    def add(self, round_: Mapping[str, Lap]) -> None:
        self.laps.append(dict(round_))

    def names(self) -> list[str]:
        return list(self.laps[0]) if self.laps else []

    def time_of(self, name: str, clock: Clock = "wall") -> Spread:
        """Seconds of one contender."""
        return Spread.of([getattr(round_[name], clock) for round_ in self.laps])

    def ratio(self, name: str, to: str, clock: Clock = "wall") -> Spread:
        """Seconds of `name` per second of `to`, round by round."""
        return Spread.of([getattr(round_[name], clock) / getattr(round_[to], clock) for round_ in self.laps])


def turns(names: Sequence[str], number: int) -> list[str]:
    """The order of round `number`: every second one is backwards, so nobody always follows the same neighbour."""
    return list(names) if number % 2 == 0 else list(reversed(names))


def clocked(step: Step, synchronise: Step, times: int = 1) -> Lap:
    """The mean of `times` steps, with all that they queued on the device."""
    watch = Stopwatch()
    for _ in range(times):
        step()
    synchronise()
    return watch.lap(times)


def interleave(
    contenders: Mapping[str, Step],
    *,
    rounds: int,
    warmup: int,
    synchronise: Step = lambda: None,
    block: int = 1,
    enough: Callable[[], bool] = lambda: False,
) -> Rounds:
    """Every contender in turn, `rounds` times after `warmup` rounds that do not count; `block` steps a turn.

    enough: asked after each round that counts; the rest is left out where it says so.
    """
    measured = Rounds()
    for number in range(-warmup, rounds):
        laps = {name: clocked(contenders[name], synchronise, block) for name in turns(list(contenders), number)}
        if number >= 0:
            measured.add({name: laps[name] for name in contenders})
            if enough():
                break
    return measured


def table(rounds: Rounds, pairs: Sequence[tuple[str, str]], *, cpu: bool) -> Iterator[str]:
    """Markdown: the times, then the ratios of the pairs, each as median, quartiles and extremes.

    cpu: the ratios of the processor time too; on a machine that others use they are the quieter ones.
    """
    rows = [(f"{name}, ms", rounds.time_of(name).scaled(1e3)) for name in rounds.names()]
    rows += [(f"{name} / {to}", rounds.ratio(name, to)) for name, to in pairs]
    rows += [(f"{name} / {to}, CPU time", rounds.ratio(name, to, "cpu")) for name, to in pairs if cpu]
    width = max(len(label) for label, _ in rows)
    yield f"| {'':<{width}} | median | quartiles | min to max | n |"
    yield f"|{'-' * (width + 2)}|---|---|---|---|"
    for label, s in rows:
        reach = f"{_figure(s.q1)} to {_figure(s.q3)} | {_figure(s.min)} to {_figure(s.max)}"
        yield f"| {label:<{width}} | {_figure(s.median)} | {reach} | {s.n} |"


def as_json(rounds: Rounds, pairs: Sequence[tuple[str, str]], *, cpu: bool) -> dict[str, dict[str, dict[str, float]]]:
    """The same for programs; times in seconds."""
    content = {
        "seconds": {name: asdict(rounds.time_of(name)) for name in rounds.names()},
        "ratios": {f"{name} / {to}": asdict(rounds.ratio(name, to)) for name, to in pairs},
    }
    if cpu:
        content["cpu_ratios"] = {f"{name} / {to}": asdict(rounds.ratio(name, to, "cpu")) for name, to in pairs}
    return content


def verdict(what: str, value: float, bar: float) -> str:
    """Whether a bar is held. Nothing fails on it: a busy machine is no fault of the code."""
    return f"{what}: {value:.3f}, bar {bar:g}: {'held' if value <= bar else 'NOT HELD'}"


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}" if value >= 10 else f"{value:.3f}"
