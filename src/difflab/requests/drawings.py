"""What `difflab sample` leaves in a folder, for who reads its pictures again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difflab.console import printable
from difflab.errors import UserError

RECORD = "sample.json"
UNFINISHED = "unfinished.json"
GRID, TRAJECTORY, ARCHIVE = TOGETHER = ("grid.png", "trajectory.png", "samples.npz")
"""Files of many samples together, beside the picture of each."""


def beside_pictures(path: Path, shown: str) -> tuple[str, ...]:
    """Names of the files in a folder that are none of its pictures: those that a drawing has besides.

    shown: the folder as a message names it. Raises UserError for a drawing that was stopped.
    """
    if (path / UNFINISHED).is_file():
        raise UserError(
            f"{shown} is a drawing that was stopped ({UNFINISHED} lies there): finish it with the same `difflab sample`"
        )
    return (RECORD, *TOGETHER) if (path / RECORD).is_file() else ()


def record_of(path: Path, otherwise: str) -> dict[str, Any] | None:
    """sample.json of the pictures in a folder or an archive, None where `difflab sample` did not write them.

    An archive of another name than `difflab sample` gives its own was put beside them by somebody else.
    otherwise: what a user may do where it is damaged besides drawing again, which the UserError says.
    """
    file = (path.parent if path.name == ARCHIVE else path) / RECORD
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{printable(file)} is damaged: draw the samples again, or {otherwise}")
    return record


def runs_of(record: Mapping[str, Any]) -> list[str]:
    """The runs that drew by what sample.json says, in the order of a cascade's stages; none where it names none."""
    pipeline = record.get("pipeline")
    stages = pipeline.get("stages") if isinstance(pipeline, dict) else None
    drew = list(stages.values()) if isinstance(stages, dict) and stages else [record]
    return [run for run in (one.get("run") for one in drew) if isinstance(run, str) and run]
