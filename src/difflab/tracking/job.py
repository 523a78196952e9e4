"""Names and groups of W&B runs, and the folder in which all of them are linked."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflab.console import say_and_log
from difflab.pipelines.stored import Stored
from difflab.tracking.rundir import RunDirectory

LONGEST = 128
"""W&B's own limit for names and groups."""


@dataclass(frozen=True)
class Job:
    """A command's W&B run.

    type: what the command does; W&B's job type.
    trained: the run that is trained or measured, `<experiment>/<name>`, and `trained_in`, its directory. Both kinds of
        W&B runs have them as `run.name` and `run.id` in their configuration, so that a dashboard joins them.
    output_root: the directory of many runs, whose `wandb` folder receives a link to this one.
    identity: what distinguishes it from other runs in the same folder, as plain containers; None: nothing does.
    """

    name: str
    type: str = "train"
    group: str | None = None
    trained: str | None = None
    trained_in: Path | None = None
    output_root: Path | None = None
    identity: Any = None

    @classmethod
    def training(cls, run: RunDirectory, experiment: str, output_root: Path | str) -> Job:
        """The training run in the directory `run`."""
        return cls(run.name, trained=f"{experiment}/{run.name}", output_root=Path(output_root).absolute())

    @classmethod
    def measuring(cls, kind: str, stored: Stored, out: RunDirectory, identity: Any) -> Job:
        """A measurement of a stored model, kept in the folder `out`; kind: of the command."""
        trained = trained_name(stored)
        return cls(
            f"{stored.home.absolute().name} {out.name}"[:LONGEST],
            kind,
            trained[:LONGEST],
            trained,
            stored.home.absolute(),
            output_root_of(stored),
            identity,
        )

    def record(self, run_id: str) -> dict[str, Any]:
        """The entry `run` of the W&B run's configuration; `run_id` is that of this job's own W&B run."""
        if self.trained is None:
            return {}
        kept = None if self.trained_in is None else self.trained_in / "wandb" / "run_id"
        if kept is not None:
            found = kept.read_text(encoding="utf-8", errors="replace").strip() if kept.is_file() else None
            return {"run": {"name": self.trained, "id": found, "path": str(self.trained_in)}}
        return {"run": {"name": self.trained, "id": run_id}}


def trained_name(stored: Stored) -> str:
    """`<experiment>/<name>` of the run that a model comes from, or the name of its folder."""
    home = stored.home.absolute()
    return home.name if stored.train is None else f"{stored.train.experiment}/{home.name}"


def output_root_of(stored: Stored) -> Path | None:
    """The root directory of a model's run, which lies in it as `<experiment>/<name>`; None if it lies elsewhere."""
    if stored.train is None:
        return None
    home, experiment = stored.home.absolute(), Path(stored.train.experiment)
    depth = len(experiment.parts)
    return home.parents[depth] if home.parent.parts[-depth:] == experiment.parts else None


def link_segment(segment: Path, output_root: Path | None) -> None:
    """Links the folder of one W&B segment into `<output root>/wandb`, where `wandb leet` and `wandb sync` find them
    all.

    The link is relative if it stays inside the output root, which may be moved or mounted elsewhere. Links of this
    kind whose run was deleted or moved are removed. If no link can be made that is reported, and nothing else is lost.
    """
    if output_root is None:
        return
    folder = output_root / "wandb"
    if folder.resolve() == segment.parent.resolve():
        return
    inside = segment.is_relative_to(output_root)
    target = Path(os.path.relpath(segment, folder)) if inside else segment
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_dangling(folder)
        with contextlib.suppress(FileExistsError):
            (folder / segment.name).symlink_to(target, target_is_directory=True)
    except OSError as error:
        say_and_log(f"{folder} has no link to {segment} ({error.strerror}): `wandb sync` takes it by its own path")


def _remove_dangling(folder: Path) -> None:
    for link in folder.glob("*run-*"):
        # A link that leads out of the output root may point to a disk that is not mounted here.
        if link.is_symlink() and not link.exists() and not link.readlink().is_absolute():
            link.unlink(missing_ok=True)
