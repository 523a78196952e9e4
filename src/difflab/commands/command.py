"""A command that samples or measures a stored model: its configuration and its work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from difflab.config.registry import load
from difflab.config.work import WorkConfig

if TYPE_CHECKING:
    from difflab.commands.processes import Processes
    from difflab.compiling import Choice, Compilation
    from difflab.pipelines.build import StoredModels
    from difflab.tracking.job import Job
    from difflab.tracking.sweep_point import SweepPoint

ConfigT = TypeVar("ConfigT", bound=WorkConfig)

UNCHANGED_BY = ("logger", "out", "accelerator", "devices", "ranks", "batch_size", "compile")
"""Keys that change results only up to rounding, so that finished work need not be repeated for other values."""


@dataclass(frozen=True)
class Machine:
    """The processes of a command, including this one, and the models loaded onto its device."""

    processes: Processes
    models: StoredModels

    def compilation(self, choice: Choice, n: int, batch_size: int) -> Compilation:
        """Which networks are compiled for work on `n` images, split among the processes, in batches of `batch_size`.

        Raises UserError for compile=true if there is no compiler.
        """
        from difflab.compiling import Compilation

        images = -(-n // self.processes.world_size)
        return Compilation(
            choice,
            images=images,
            batch=min(batch_size, images),
            device=self.models.device.type,
            networks=self.models.compiled,
            speaks=self.processes.is_main,
        )


@dataclass(frozen=True)
class Kept:
    """Where the output is stored, and what it depends on.

    root, name: the output goes to the folder `name` in `root`, unless `out` is set.
    files, content: the files, and the hashes of data, that it depends on besides the configuration.
    """

    root: Path
    name: str
    files: Sequence[Path] = ()
    content: Sequence[str] = ()


class Work(Protocol):
    """The work of one command line, prepared on every process: nothing is sampled or measured yet, but invalid requests
    have raised their errors.
    """

    @property
    def processes(self) -> Processes: ...
    @property
    def kept(self) -> Kept: ...

    def do(self, place: Path, job: Callable[[Job], Job] = ...) -> None:
        """Does the work and stores it in the folder `place`. Called by all processes together.

        job: modifies the tracker's run.
        """
        ...

    def is_kept(self, place: Path) -> bool:
        """Whether the folder `place` holds all of it, from an earlier command."""
        ...

    def show(self, place: Path) -> None:
        """Prints the results and where they are stored. Called by the first process."""
        ...


@dataclass(frozen=True)
class Command(Generic[ConfigT]):
    """One command. Builders are `module:function`, imported only when there is work to do.

    name, primary: of the command, and of its file in conf/. config: the typed configuration.
    swept: keys that may have several values, each of which is a separate point.
    results: the name of its points, in the plural.
    complete: adds overrides that make the stored configuration of the run the starting point.
    build: (config, plain containers, overrides, machine) -> Work; raises UserError for invalid requests.
    report: (points, their folders, folder of the report), shows several points together.
    unfinished: the message if a single one is interrupted, None if the work itself reports it.
    """

    name: str
    primary: str
    config: type[ConfigT]
    swept: tuple[str, ...]
    results: str
    complete: Callable[[Sequence[str]], list[str]]
    build: str
    report: str
    unfinished: str | None = None

    def work(self, config: ConfigT, plain: Mapping[str, Any], overrides: Sequence[str], machine: Machine) -> Work:
        """The work of a command line. Called by all processes together. Raises UserError for invalid requests."""
        return load(self.build)(config, dict(plain), list(overrides), machine)

    def show_all(self, points: Sequence[SweepPoint], places: Sequence[Path], folder: Path) -> None:
        """Shows the results of several points, and stores them in `folder`."""
        load(self.report)(points, places, folder)


@contextlib.contextmanager
def machine_of(config: WorkConfig) -> Iterator[Machine]:
    """Starts a process for each device; inside the context, each has a store for the models on its device.

    Raises UserError if the machine lacks the requested devices.
    """
    from difflab.commands.drawing import models_on
    from difflab.commands.processes import started
    from difflab.devices import resolve_accelerator

    accelerator = resolve_accelerator(config.accelerator)
    with started(config.devices, accelerator, config.ranks) as processes:
        yield Machine(processes, models_on(accelerator))


def what_counts(config: WorkConfig, plain: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration, as plain containers, that the results depend on."""
    unchanged = {*UNCHANGED_BY, *config.without_effect}
    return {key: value for key, value in plain.items() if key not in unchanged}


def same(job: Job) -> Job:
    """Returns the tracker's run unchanged."""
    return job
