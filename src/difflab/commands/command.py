"""A command that draws from a stored model or measures one: its configuration, and the work that it does."""

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
"""Keys that leave what is drawn and measured as it is, up to rounding: with other ones it need not be made again."""


@dataclass(frozen=True)
class Machine:
    """The processes of a command, of which this is one, and the models that it has loaded onto its device."""

    processes: Processes
    models: StoredModels

    def compilation(self, choice: Choice, n: int, batch_size: int) -> Compilation:
        """Which networks are compiled for work on `n` images, shared by the processes, of which each does `batch_size`
        at once.

        Raises UserError for compile=true where there is nothing to compile with.
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
    """Where what comes out is kept, and what it is made of.

    root, name: in the folder `name` of `root`, unless `out` says where.
    files, content: those, and the hashes of data, that decide it besides the configuration.
    """

    root: Path
    name: str
    files: Sequence[Path] = ()
    content: Sequence[str] = ()


class Work(Protocol):
    """What one command line asks for, made ready on every process: nothing is drawn or measured yet, but what cannot
    be is refused.
    """

    @property
    def processes(self) -> Processes: ...
    @property
    def kept(self) -> Kept: ...

    def do(self, place: Path, job: Callable[[Job], Job] = ...) -> None:
        """Do it and keep it in the folder `place`. All processes call it together.

        job: changes the tracker's run of it.
        """
        ...

    def is_kept(self, place: Path) -> bool:
        """Whether it lies whole in the folder `place`, where it was done before."""
        ...

    def show(self, place: Path) -> None:
        """Print what came out, and where it lies. The first process calls it."""
        ...


@dataclass(frozen=True)
class Command(Generic[ConfigT]):
    """One of them. Builders are `module:function`, imported only when there is something to do.

    name, primary: of the command, and of its file in conf/. config: the typed configuration.
    swept: keys that may have several values, each of which is a point of its own.
    results: what its points are, in the plural.
    complete: the overrides with those that make what is stored with the run the starting point.
    build: (config, plain containers, overrides, machine) -> Work; raises UserError for what cannot be done.
    report: (points, their folders, folder of the report), for what is shown of several points.
    unfinished: what is said where one alone is interrupted, None where the work says it.
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
        """What a command line asks for. All processes call it together. Raises UserError for what cannot be done."""
        return load(self.build)(config, dict(plain), list(overrides), machine)

    def show_all(self, points: Sequence[SweepPoint], places: Sequence[Path], folder: Path) -> None:
        """Show what came out of several points, and keep it in `folder`."""
        load(self.report)(points, places, folder)


@contextlib.contextmanager
def machine_of(config: WorkConfig) -> Iterator[Machine]:
    """Start a process for each device; inside, each has a place for the models that it loads onto its device.

    Raises UserError where the machine has not what is asked for.
    """
    from difflab.commands.drawing import models_on
    from difflab.commands.processes import started
    from difflab.devices import resolve_accelerator

    accelerator = resolve_accelerator(config.accelerator)
    with started(config.devices, accelerator, config.ranks) as processes:
        yield Machine(processes, models_on(accelerator))


def what_counts(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that the outcome depends on."""
    return {key: value for key, value in plain.items() if key not in UNCHANGED_BY}


def same(job: Job) -> Job:
    """The tracker's run as it is."""
    return job
