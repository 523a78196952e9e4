"""The folder that `difflab sample` writes, for code that reads its images again."""

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
"""Files that hold many samples, besides the image file of each sample."""


def beside_pictures(path: Path, shown: str) -> tuple[str, ...]:
    """Names of the files in a folder that are not sample images: those that `difflab sample` writes besides them.

    shown: the folder as named in messages. Raises UserError for a sampling run that was stopped.
    """
    if (path / UNFINISHED).is_file():
        raise UserError(
            f"{shown} holds an unfinished sampling run ({UNFINISHED}): finish it with the same `difflab sample`"
        )
    return (RECORD, *TOGETHER) if (path / RECORD).is_file() else ()


def record_of(path: Path, otherwise: str) -> dict[str, Any] | None:
    """sample.json of the images in a folder or an archive, None if `difflab sample` did not write them.

    An archive that does not have the name which `difflab sample` gives was put beside it by somebody else.
    otherwise: what the user may do about a damaged file besides sampling again, for the UserError.
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
    """The runs that generated the samples, according to sample.json, in the order of the stages; may be empty."""
    pipeline = record.get("pipeline")
    stages = pipeline.get("stages") if isinstance(pipeline, dict) else None
    drew = list(stages.values()) if isinstance(stages, dict) and stages else [record]
    return [run for run in (one.get("run") for one in drew) if isinstance(run, str) and run]


def seed_of(record: Mapping[str, Any]) -> int:
    """The seed of the samples, according to sample.json. Raises UserError if it does not say one."""
    seed = record.get("seed")
    if not isinstance(seed, int):
        raise UserError(
            f"{RECORD} says no seed, on which the low-resolution images of this model depend: draw the samples again"
        )
    return seed
