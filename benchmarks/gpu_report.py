"""Figures as they come: a line and a record each, within a share of the time, and a reason where there is none."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.command import print_lines

Result = TypeVar("Result")

REASON = 160
"""Characters of an error that a line has room for."""


@dataclass(frozen=True)
class Goal:
    """What a figure should be: at least, or at most, `value`. Nothing fails on it."""

    value: float
    at_least: bool = True

    def __str__(self) -> str:
        return f"at {'least' if self.at_least else 'most'} {self.value:.3g}"

    def held_by(self, value: float) -> bool:
        """NaN holds nothing."""
        return value >= self.value if self.at_least else value <= self.value


@dataclass
class Report:
    """Where the figures of one part go.

    until: the moment (of `time.time()`) at which the part has to be through.
    path: of the JSON lines, None for none.
    facts: what stands in every record, as the name of the card.
    """

    part: str
    until: float
    path: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def figure(self, name: str, value: float, unit: str, goal: Goal | None = None, **more: Any) -> None:
        """A number, whether its goal is held, and what else belongs to it (in the record; texts also in the line)."""
        judged = "" if goal is None else f" (goal: {goal}: {'held' if goal.held_by(value) else 'NOT HELD'})"
        notes = "".join(f"; {note}" for note in more.values() if isinstance(note, str))
        record: dict[str, Any] = {"figure": name, "value": value, "unit": unit}
        if goal is not None:
            record |= {"goal": goal.value, "at_least": goal.at_least, "held": goal.held_by(value)}
        self._tell(f"{name}: {_figure(value)} {unit}".rstrip() + judged + notes, record | more)

    def note(self, name: str, text: str) -> None:
        """What is no number."""
        self._tell(f"{name}: {text}", {"figure": name, "note": text})

    def failed(self, name: str, error: BaseException) -> None:
        """Why there is no figure, in one line."""
        self._tell(f"{name}: FAILED: {reason(error)}", {"figure": name, "failed": reason(error)})

    def left_out(self, name: str, why: str) -> None:
        """What was not even tried."""
        self._tell(f"{name}: left out: {why}", {"figure": name, "left_out": why})

    def left(self) -> float:
        """Seconds that the part still has."""
        return self.until - time.time()

    def deadline(self, fraction: float) -> Callable[[], bool]:
        """A question that is answered with yes once this fraction of what is left now is over."""
        end = time.time() + max(self.left(), 0.0) * fraction
        return lambda: time.time() >= end

    def attempt(self, name: str, work: Callable[[], Result], *, needs: float = 0.0) -> Result | None:
        """What `work` returns; None, and a line, where it fails or would need more seconds than are left."""
        if self.left() <= needs:
            self.left_out(name, f"it takes about {needs:.0f} s, {max(self.left(), 0.0):.0f} s are left of this part")
            return None
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - memory, compiler, driver: the figures after it still tell
            self.failed(name, error)
        # Only now: the frames of the error held on to what they had on the device.
        free_memory()
        return None

    def _tell(self, line: str, record: dict[str, Any]) -> None:
        # First the record: whoever reads the line may end us.
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"part": self.part, **record, **self.facts}) + "\n")
        print_lines(f"{self.part} | {line}")


def share(left: float, weights: Sequence[float]) -> float:
    """What the first of some parts may take of the seconds that are left: what it does not use is for the others."""
    return left * weights[0] / sum(weights)


def reason(error: BaseException) -> str:
    """An error in one line."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= REASON else f"{line[: REASON - 3]}..."


def free_memory() -> None:
    """Give back what nobody holds any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def start_afresh() -> None:
    """The same between two comparisons; dynamo, which keeps few versions of a function, forgets what it compiled."""
    import torch

    torch.compiler.reset()
    free_memory()


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
