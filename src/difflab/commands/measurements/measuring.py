"""Runs any measurement, stores its records and shows its results."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difflab import jsonl
from difflab.commands.command import Kept, same, what_counts
from difflab.commands.measurements.base import Measurement
from difflab.commands.processes import Processes
from difflab.config.work import MeasuringConfig
from difflab.console import console, say
from difflab.metrics.naming import distinct_names
from difflab.metrics.protocol import Result
from difflab.tracking.build import build_loggers
from difflab.tracking.job import Job
from difflab.tracking.rundir import RunDirectory


@dataclass
class Measuring:
    """The work of a command that measures (see `difflab.commands.command.Work`)."""

    measurement: Measurement
    config: MeasuringConfig
    plain: dict[str, Any]
    overrides: list[str]
    found: list[Result] = field(default_factory=list)

    @property
    def processes(self) -> Processes:
        return self.measurement.processes

    @property
    def kept(self) -> Kept:
        return self.measurement.kept

    def do(self, place: Path, job: Callable[[Job], Job] = same) -> None:
        """Measures. The records are stored in the folder and, for a run, also in its evaluations.jsonl."""
        out = RunDirectory(place)
        self.measurement.prepare()
        with self.processes.taking(out.path, "is being measured into"):
            self._measure(out, job(self.measurement.job(out, what_counts(self.config, self.plain))))

    def _measure(self, out: RunDirectory, job: Job) -> None:
        measurement, is_main = self.measurement, self.processes.is_main
        if is_main:
            out.write_records(self.plain, self.overrides)
        with build_loggers(self.config.logger, out, {**self.plain, **measurement.described()}, job) as loggers:
            self.found = measurement.results()
            records = [json.loads(result.to_json()) for result in self.found]
            if is_main:
                # A folder given by the user may already hold results of another protocol.
                names = distinct_names(records, jsonl.read(out.evaluations))
                numbers = {f"eval/{name}": result.value for name, result in zip(names, self.found, strict=True)}
                for logger in loggers:
                    logger.log_metrics(numbers, step=0)
                measurement.write(out, loggers)
        if is_main:
            for path in dict.fromkeys([out.evaluations, measurement.also_kept_in or out.evaluations]):
                jsonl.append(path, [json.dumps(record) for record in records])

    def is_kept(self, place: Path) -> bool:
        return bool(jsonl.read(RunDirectory(place).evaluations))

    def show(self, place: Path) -> None:
        """Shows a table of the results, their warnings, and where the records are."""
        from rich.table import Table

        table = Table("metric", "value", "spread", "protocol")
        for row in table_of(self.found):
            table.add_row(*row)
        console().print(table)
        for remark in self.measurement.remarks(self.found):
            say(remark)
        for warning in dict.fromkeys(warning for result in self.found for warning in result.warnings):
            say(f"note: {warning}")
        say(f"records in {RunDirectory(place).path}")


def table_of(results: Sequence[Result]) -> list[tuple[str, str, str, str]]:
    """Name, value, spread and the protocol's hash of each."""
    return [
        (one.name, f"{one.value:.5g}", "" if one.spread is None else f"{one.spread:.2g}", one.protocol.hash)
        for one in results
    ]
