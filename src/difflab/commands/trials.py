"""Tries schedules one by one: each is a separate evaluation, recorded in a ledger and never repeated."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflab.commands.command import Machine
from difflab.commands.drawing import prepare_drawing
from difflab.commands.measurements.measuring import Measuring
from difflab.commands.measurements.samples import SamplesMeasurement, measurement_of
from difflab.commands.planned import Planned, ledger_of
from difflab.config.metrics import is_called
from difflab.config.sample import EvaluateConfig
from difflab.config.sampler import SamplerConfig
from difflab.config.schedule import SEARCHING, ScheduleConfig
from difflab.config.validate import validate
from difflab.console import say_on_stderr
from difflab.errors import UserError
from difflab.metrics.protocol import Result
from difflab.tracking.sweep_ledger import Ledger, read_all_measured
from difflab.tracking.sweep_point import SweepPoint

QUIET = {"csv": False, "wandb": None}
"""No logger for a candidate: its records are enough, and the search has its own run."""


@dataclass(frozen=True)
class OfTheSearch(SamplesMeasurement):
    """The samples of a candidate, with records that belong to the search, not to the run's evaluations."""

    @property
    def also_kept_in(self) -> Path | None:
        return None


@dataclass(frozen=True)
class Measured:
    """result: None if the candidate could not be measured. seconds: 0 if it was measured before."""

    result: Result | None
    folder: Path
    seconds: float

    @property
    def value(self) -> float:
        return math.nan if self.result is None else self.result.value


class Trials:
    """Measures samplers on the samples of a search. Called by all processes together.

    root: the folder of all candidates, and of their ledger.
    """

    def __init__(
        self, config: ScheduleConfig, plain: dict[str, Any], overrides: Sequence[str], machine: Machine, root: Path
    ) -> None:
        self.config, self.machine, self.root = config, machine, root
        self.overrides = list(overrides)
        self.ledger: Ledger = ledger_of(root)
        metrics = {name: one for name, one in config.plain()["metrics"].items() if one is not None}
        if config.kind is not None:
            # Candidates are not compared by the other metrics.
            metrics = {name: one for name, one in metrics.items() if one["kind"] == config.kind}
        kept = {key: value for key, value in plain.items() if key not in SEARCHING}
        self.plain = {**kept, "metrics": metrics, "logger": QUIET, "out": str(root)}

    def measure(self, sampler: SamplerConfig, seed: int, label: str) -> Measured:
        """The metric of the samples of a seed with a sampler; read back if it was measured before.

        Raises UserError if there is no metric of the requested name.
        """
        point = self._planned(sampler, seed, label)
        begin = time.monotonic()
        processes = self.machine.processes
        if not processes.from_first(lambda: point.is_done(self.ledger)):
            point.failure = point.try_to_do()
            seconds = time.monotonic() - begin
            if processes.is_main:
                self.ledger.record(point.entry("done" if point.failure is None else "failed", seconds))
                if point.failure is not None:
                    say_on_stderr(f"difflab schedule: {label}: {point.failure}")
            if point.failure is not None:
                return Measured(None, point.place, seconds)
        else:
            seconds = 0.0
        return Measured(processes.from_first(lambda: self._result(point.place)), point.place, seconds)

    def _planned(self, sampler: SamplerConfig, seed: int, label: str) -> Planned[EvaluateConfig]:
        plain = {**self.plain, "sampler": sampler.plain(), "seed": seed}
        config = validate(EvaluateConfig, plain)
        processes = self.machine.processes
        with processes.agreeing():
            drawing = prepare_drawing(config, processes, self.machine.models)
            found = measurement_of(drawing, config, self.overrides)
        work = Measuring(OfTheSearch(found.samples, found.evaluator), config, plain, self.overrides)
        point = SweepPoint(1, {"schedule": label}, "", "evaluate", tuple(self.overrides))
        return Planned(point, config, plain, work, self.root / work.kept.name)

    def _result(self, place: Path) -> Result:
        (measured,) = read_all_measured([place])
        results = list(measured.results.values())
        named = [one for one in results if is_called(one.metric, self.config.metric)]
        exact = [one for one in named if one.metric == self.config.metric]
        if len(named) != 1 and len(exact) != 1:
            there = ", ".join(dict.fromkeys(one.metric for one in named or results))
            raise UserError(f"metric={self.config.metric}: name one of {there or 'metrics that are there'}")
        return (exact or named)[0]
