"""The files of a drawing besides its pictures, for whoever takes these up again."""

from __future__ import annotations

from pathlib import Path

from difflab.errors import UserError

RECORD = "sample.json"
UNFINISHED = "unfinished.json"
GRID, TRAJECTORY, ARCHIVE = TOGETHER = ("grid.png", "trajectory.png", "samples.npz")
"""Files that have many or all samples in one."""


def no_samples_in(folder: Path, shown: str) -> tuple[str, ...]:
    """Names of files in a folder that are none of its pictures: in one that `difflab sample` wrote, those of all
    pictures together.

    shown: what the user gave, for the message. Raises UserError where the drawing was stopped before its end.
    """
    if (folder / UNFINISHED).is_file():
        raise UserError(
            f"{shown} is a drawing that was stopped ({UNFINISHED} lies there): finish it with the same `difflab sample`"
        )
    return TOGETHER if (folder / RECORD).is_file() else ()
