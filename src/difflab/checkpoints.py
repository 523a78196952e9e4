"""The files in a run's `checkpoints` folder, by the step in their names."""

from __future__ import annotations

from pathlib import Path

from difflab.files import numbered

LAST = "last.ckpt"


def checkpoint_name(step: int) -> str:
    """The file of the checkpoint after `step` steps: `step-000100.ckpt`."""
    return f"step-{step:06d}.ckpt"


def step_checkpoints(dirpath: Path, up_to: int | None = None) -> list[tuple[int, Path]]:
    """(step, file) of the checkpoints in `dirpath`, oldest first; those after step `up_to` are left out."""
    return [(step, path) for step, path in numbered(dirpath, "step-", ".ckpt") if up_to is None or step <= up_to]


def newest_checkpoint(dirpath: Path) -> Path | None:
    """last.ckpt, or the one of the highest step if a kill came before last.ckpt was written; None if there is none."""
    last = dirpath / LAST
    if last.is_file():
        return last
    found = step_checkpoints(dirpath)
    return found[-1][1] if found else None
