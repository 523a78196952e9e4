"""Interleaved timing: neighbours in time are compared, so that what else the machine does cancels out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

Step = Callable[[], object]


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
    """Seconds of each contender in each round. A ratio is taken inside a round, then its median over the rounds."""

    seconds: list[dict[str, float]] = field(default_factory=list)

    def add(self, round_: Mapping[str, float]) -> None:
        self.seconds.append(dict(round_))

    def names(self) -> list[str]:
        return list(self.seconds[0]) if self.seconds else []

    def time_of(self, name: str) -> Spread:
        """Seconds of one contender."""
        return Spread.of([round_[name] for round_ in self.seconds])

    def ratio(self, name: str, to: str) -> Spread:
        """Seconds of `name` per second of `to`, round by round."""
        return Spread.of([round_[name] / round_[to] for round_ in self.seconds])


def turns(names: Sequence[str], number: int) -> list[str]:
    """The order of round `number`: every second one is backwards, so nobody always follows the same neighbour."""
    return list(names) if number % 2 == 0 else list(reversed(names))


def clocked(step: Step, synchronise: Step, times: int = 1) -> float:
    """Mean seconds of `times` steps, with all that they queued on the device."""
    begin = time.perf_counter()
    for _ in range(times):
        step()
    synchronise()
    return (time.perf_counter() - begin) / times


def interleave(
    contenders: Mapping[str, Step], *, rounds: int, warmup: int, synchronise: Step = lambda: None, block: int = 1
) -> Rounds:
    """Every contender in turn, `rounds` times after `warmup` rounds that do not count; `block` steps a turn."""
    measured = Rounds()
    for number in range(-warmup, rounds):
        order = turns(list(contenders), number)
        seconds = {name: clocked(contenders[name], synchronise, block) for name in order}
        if number >= 0:
            measured.add({name: seconds[name] for name in contenders})
    return measured


def table(rounds: Rounds, pairs: Sequence[tuple[str, str]], unit: str = "ms") -> Iterator[str]:
    """Markdown: the times, then the ratios of the pairs, each as median, quartiles and extremes."""
    factor = {"s": 1.0, "ms": 1e3}[unit]
    rows = [(f"{name}, {unit}", rounds.time_of(name).scaled(factor)) for name in rounds.names()]
    rows += [(f"{name} / {to}", rounds.ratio(name, to)) for name, to in pairs]
    width = max(len(label) for label, _ in rows)
    yield f"| {'':<{width}} | median | quartiles | min to max | n |"
    yield f"|{'-' * (width + 2)}|---|---|---|---|"
    for label, s in rows:
        middle = f"{_figure(s.q1)} to {_figure(s.q3)} | {_figure(s.min)} to {_figure(s.max)}"
        yield f"| {label:<{width}} | {_figure(s.median)} | {middle} | {s.n} |"


def as_json(rounds: Rounds, pairs: Sequence[tuple[str, str]]) -> dict[str, dict[str, dict[str, float]]]:
    """The same for programs; times in seconds."""
    return {
        "seconds": {name: asdict(rounds.time_of(name)) for name in rounds.names()},
        "ratios": {f"{name} / {to}": asdict(rounds.ratio(name, to)) for name, to in pairs},
    }


def verdict(what: str, value: float, bar: float, form: str = ".3f") -> str:
    """Whether a bar is held. Nothing fails on it: a busy machine is no fault of the code."""
    return f"{what}: {value:{form}}, bar {bar:g}: {'held' if value <= bar else 'NOT HELD'}"


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}" if value >= 10 else f"{value:.3f}"
