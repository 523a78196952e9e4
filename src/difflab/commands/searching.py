"""The work of `difflab schedule`: tries candidates, evaluates the best on held-out samples, and shows how to use it."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from difflab.commands.command import UNCHANGED_BY, Kept, Machine, same, what_counts
from difflab.commands.composing import compose
from difflab.commands.drawing import CHANGES_MEASURES, Drawing, draw_name, prepare_drawing
from difflab.commands.measurements.images import log_picture
from difflab.commands.processes import Processes
from difflab.commands.run_defaults import in_hydra
from difflab.commands.sweep_progress import duration
from difflab.commands.trials import Measured, Trials
from difflab.config.sample import SampleConfig
from difflab.config.sampler import SamplerConfig
from difflab.config.schedule import SEARCHING, ScheduleConfig
from difflab.console import console, printable, say, say_on_stderr
from difflab.diffusion.levels.grid import HIGHEST, LOWEST
from difflab.diffusion.schedule_search import Search, schedule_search
from difflab.errors import UserError
from difflab.files import write_text
from difflab.pipelines.diffusing import DiffusingStage
from difflab.tracking.build import build_loggers
from difflab.tracking.job import Job
from difflab.tracking.rundir import RunDirectory
from difflab.tracking.schedule import DEFAULT, FOUND, Trial, plot_trials, write_trials

if TYPE_CHECKING:
    from difflab.metrics.protocol import Result

FILE = "schedule.yaml"
NO_WORDS = ("null", "true", "false", "inf", "nan")


@dataclass
class Searching:
    """The work of `difflab schedule` (see `difflab.commands.command.Work`)."""

    config: ScheduleConfig
    plain: dict[str, Any]
    overrides: list[str]
    machine: Machine
    drawing: Drawing
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def processes(self) -> Processes:
        return self.machine.processes

    @property
    def kept(self) -> Kept:
        name = f"{draw_name(self.config, *CHANGES_MEASURES, *SEARCHING)}-n{self.config.n}"
        return Kept(self.drawing.stored.home / "schedules", name, self.drawing.files)

    @property
    def stage(self) -> DiffusingStage:
        """The stage whose levels are searched for."""
        assert isinstance(self.drawing.pipeline.last, DiffusingStage), "a single pipeline is one"
        return self.drawing.pipeline.last

    def do(self, place: Path, job: Callable[[Job], Job] = same) -> None:
        """Searches, evaluates the result on held-out samples, and stores everything in the folder."""
        out = RunDirectory(place)
        root = (self.kept.root if self.config.out is None else out.path) / "candidates"
        with self.processes.taking(out.path, "is being searched into"):
            if self.processes.is_main:
                out.write_records(self.plain, self.overrides)
            measure = Trials(self.config, self.plain, self.overrides, self.machine, root)
            trials = self._tried(measure)
            best = min(trials, key=lambda one: self._score(one.value))
            held_out = {
                name: measure.measure(self._visiting(one), self.config.other_seed, f"{name}, held out")
                for name, one in ((DEFAULT, trials[0]), (FOUND, best))
            }
            results = {name: one.result for name, one in held_out.items() if one.result is not None}
            if len(results) < len(held_out):
                raise UserError("the held-out samples cannot be measured; fix the error above, and try again")
            if self.processes.is_main:
                self._keep(out, trials, best, results, job)

    def _tried(self, measure: Trials) -> list[Trial]:
        """Measures every candidate, the sampler's own spacing first."""
        start, total = self._own_sigmas(), self.config.candidates
        trials: list[Trial] = []

        def tried(sigmas: Sequence[float], origin: str) -> float:
            label = f"candidate {len(trials) + 1} of {total} ({origin})"
            one = Trial(len(trials) + 1, tuple(sigmas), origin, math.nan, None, "", 0.0)
            got = measure.measure(self._visiting(one), self.config.seed, label)
            if not trials and got.result is None:
                raise UserError("the sampler's own levels cannot be measured; fix the error above, and try again")
            trials.append(_trial(one, got))
            if self.processes.is_main:
                self._say(trials, label)
            return self._score(got.value)

        try:
            self._walk(start, tried)
        except KeyboardInterrupt as stop:
            stop.add_note(f"{len(trials)} of {total} candidates are done; the same command continues with the others")
            raise
        return trials

    def _walk(self, start: Sequence[float], tried: Callable[[Sequence[float], str], float]) -> None:
        score, left = tried(start, DEFAULT), self.config.candidates - 1
        fixed = sum(map(math.isinf, start))
        search: Search = schedule_search(start, score, self._ends(), grid=-(-left // 2), fixed=fixed)
        candidate = next(search, None)
        while candidate is not None and left > 0:
            score, left = tried(candidate.sigmas, candidate.origin), left - 1
            try:
                candidate = search.send(score)
            except StopIteration:
                candidate = None

    def _own_sigmas(self) -> list[float]:
        """sigma / alpha of the sampler's own levels, without an end that is fixed."""
        levels = self.stage.sampler.levels(self.stage.process)
        listed = levels if self.config.sampler.lists_its_end else levels[:-1]
        return [level.edm_sigma for level in listed]

    def _ends(self) -> tuple[float, float]:
        """The range of sigmas to search: the model's, within EDM's."""
        low, high = self.stage.trained_process.sigma_range
        return max(low, LOWEST), min(high, HIGHEST)

    def refuse_a_single_level(self) -> None:
        """Raises UserError for a model with a single level, pure noise, which leaves nothing to search for."""
        table = self.stage.trained_process.table
        if table is not None and not len(table.sigmas):
            raise UserError(
                f"run={printable(self.config.run)} has one level, pure noise: there is nothing "
                "to search for; sample it with one step, or give run= a model of several levels"
            )

    def _visiting(self, one: Trial) -> SamplerConfig:
        return self.config.sampler if one.origin == DEFAULT else self.config.sampler.visiting(_in_words(one.sigmas))

    def _score(self, value: float) -> float:
        """The value with lower = better; an undefined value is the worst."""
        if not math.isfinite(value):
            return math.inf
        return value if self.config.direction == "minimize" else -value

    def _say(self, trials: Sequence[Trial], label: str) -> None:
        best = min(trials, key=lambda one: self._score(one.value))
        took = [one.seconds for one in trials if one.seconds > 0]
        left = self.config.candidates - len(trials)
        rest = f"; about {duration(left * sum(took) / len(took))} left" if left and took else ""
        how = "" if trials[-1].seconds else ", done before"
        say_on_stderr(
            f"schedule: {label}{how}: {self.config.metric} {trials[-1].value:.5g}; best {best.value:.5g}, "
            f"default {trials[0].value:.5g}{rest}"
        )

    # -- results ----------------------------------------------------------------------------------------------------

    def _keep(
        self,
        out: RunDirectory,
        trials: Sequence[Trial],
        best: Trial,
        held_out: dict[str, Result],
        job: Callable[[Job], Job],
    ) -> None:
        write_trials(trials, self.config.metric, out.path / "candidates.csv")
        plot_trials(trials, best, self.config.metric, out.path / "schedule.svg")
        numbers = {f"schedule/{name}": one.value for name, one in ((DEFAULT, trials[0]), (FOUND, best))}
        numbers |= {f"schedule/{name}_held_out": one.value for name, one in held_out.items()}
        described = {**self.plain, **self.drawing.described()}
        with build_loggers(
            self.config.logger,
            out,
            described,
            job(Job.measuring("schedule", self.drawing.stored, out, what_counts(self.config, self.plain))),
        ) as loggers:
            for logger in loggers:
                for one in trials:
                    logger.log_metrics({"schedule/candidate": one.value}, step=one.number)
                logger.log_metrics(numbers, step=len(trials))
            log_picture(loggers, "schedule/levels", out.path / "schedule.png")
        write_text(out.evaluations, held_out[FOUND].to_json() + "\n")
        write_text(out.path / FILE, yaml.safe_dump(self._record(trials, best, held_out), sort_keys=False))

    def _record(self, trials: Sequence[Trial], best: Trial, held_out: dict[str, Result]) -> dict[str, Any]:
        sampler = self._visiting(best).plain()
        own = self.config.sampler.plain()
        overrides = _changes(sampler, own, "sampler.")
        found = held_out[FOUND]
        return {
            "metric": found.metric,
            "goal": self.config.direction,
            "n": self.config.n,
            "candidates": len(trials),
            "found": best.origin,
            "sigmas": _in_words(best.sigmas),
            "overrides": overrides,
            "command": self._command(sampler),
            "searched": {"seed": self.config.seed, DEFAULT: trials[0].value, FOUND: best.value},
            "held_out": {
                "seed": self.config.other_seed,
                **{name: one.value for name, one in held_out.items()},
            },
            "sampler": sampler,
            "protocol": found.protocol.model_dump(mode="json"),
        }

    def _command(self, sampler: Mapping[str, Any]) -> str:
        """The `difflab sample` command that uses the result."""
        chosen = [f"run={self.config.run}", f"sampler={sampler['kind']}", f"guidance={self.config.guidance.kind}"]
        plain = {**self.config.plain(), "sampler": sampler, "seed": 0}
        wanted = {key: plain[key] for key in SampleConfig.model_fields if key in plain and key not in UNCHANGED_BY}
        return shlex.join(["difflab", "sample", *chosen, *_changes(wanted, compose("sample", chosen))])

    def is_kept(self, place: Path) -> bool:
        return (place / FILE).is_file()

    def show(self, place: Path) -> None:
        """Shows the metric of the default and of the result, on both sets of samples, and how to use the result."""
        from rich.table import Table

        record = yaml.safe_load((place / FILE).read_text(encoding="utf-8"))
        searched, held_out = record["searched"], record["held_out"]
        table = Table("schedule", f"{record['metric']}, seed {searched['seed']}", f"seed {held_out['seed']}, held out")
        for name in (DEFAULT, FOUND):
            table.add_row(name, f"{searched[name]:.5g}", f"{held_out[name]:.5g}")
        console().print(table)
        say(_in_one_line(record))
        say(f"{FILE}, candidates.csv, schedule.svg and the records in {place}")
        say(f"sample with it: {record['command']}")


def _in_one_line(record: dict[str, Any]) -> str:
    if record["found"] == DEFAULT:
        return f"none of {record['candidates']} candidates is better than the sampler's own levels"
    default, found = record["held_out"][DEFAULT], record["held_out"][FOUND]
    better = found < default if record["goal"] == "minimize" else found > default
    share = f" ({found / default - 1.0:+.0%})" if default > 0 else ""
    if better:
        return (
            f"trust the held-out number: the levels were chosen on the samples of seed {record['searched']['seed']}; "
            f"on others {record['metric']} goes from {default:.4g} to {found:.4g}{share}"
        )
    return (
        f"on held-out samples the found levels are no better: {record['metric']} {found:.4g}, the "
        f"default {default:.4g}; use more samples (n=) in the search"
    )


def _changes(wanted: Mapping[str, Any], there: Mapping[str, Any], place: str = "") -> list[str]:
    """The overrides that turn a composed configuration into the wanted one."""
    overrides: list[str] = []
    for key, value in wanted.items():
        if isinstance(value, Mapping) and isinstance(there.get(key), Mapping):
            overrides += _changes(value, there[key], f"{place}{key}.")
        elif value != there.get(key):
            overrides.append(f"{place}{key}={_written(value)}")
    return overrides


def _written(value: Any) -> str:
    """A value as people write it: words without quotes, if Hydra parses them as words."""
    word = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w.-]*", value) is not None
    return value if word and value.lower() not in NO_WORDS else in_hydra(value)


def _trial(one: Trial, got: Measured) -> Trial:
    spread = None if got.result is None else got.result.spread
    return Trial(one.number, one.sigmas, one.origin, got.value, spread, got.folder.name, got.seconds)


def _in_words(sigmas: Sequence[float]) -> list[Any]:
    return ["inf" if math.isinf(sigma) else sigma for sigma in sigmas]


def searching(config: ScheduleConfig, plain: dict[str, Any], overrides: list[str], machine: Machine) -> Searching:
    """The work of the search. Raises UserError for a model or a sampler whose levels cannot be searched for."""
    with machine.processes.agreeing():
        work = Searching(config, plain, overrides, machine, prepare_drawing(config, machine.processes, machine.models))
        work.refuse_a_single_level()
    return work
