"""Which image of a data split each picture was made of, where pictures are made already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from difflab.config.model import DrawingModelConfig
from difflab.config.request import GIVEN
from difflab.config.sample import EvaluateSamplesConfig
from difflab.errors import UserError
from difflab.metrics.paired import Pairs
from difflab.pipelines.pairing import downsampling_of
from difflab.pipelines.stored import Stored, find_stored
from difflab.requests.data_split import DataSplit
from difflab.requests.drawings import RECORD, record_of, runs_of
from difflab.types import Batch

SAY = "give paired=true where picture i was made of image i of the split"


def pairs_of_given(config: EvaluateSamplesConfig, path: Path, n: int, shape: tuple[int, int, int]) -> Pairs:
    """Of the first n pictures of the folder or archive `path`, each (C, H, W) `shape`.

    They have originals where `difflab sample` drew them of the same split of the same data, which its sample.json and
    its run tell, or where the user says `paired`.
    Raises UserError for more pictures than images, where the user says it, and for a sample.json that is damaged.
    """
    if config.data is None:
        return _unpaired("there is no data set: give data= and split= of the originals", shape)
    record = _record_of(path, paired=config.paired)
    stored = None if record is None else _drawn_with(record)
    if not config.paired:
        why = _not_drawn_of(config, path, record, stored)
        if why is not None:
            return _unpaired(why, shape)
    originals = DataSplit(config.data, config.split, ["image"])
    if config.paired and n > len(originals):
        raise UserError(
            f"paired=true, but there are {n} pictures and {len(originals)} images in split {config.split}: give n="
            f"{len(originals)} or less, or the split that they were made of"
        )

    def of(indices: Sequence[int]) -> Batch:
        return {"original": originals(indices, 0)["image"]}

    return Pairs(of, shape, None if stored is None else downsampling_of(stored[0]))


def _unpaired(why: str, shape: tuple[int, int, int]) -> Pairs:
    return Pairs(shape=shape, unpaired=why, enlarges_nothing=why)


def _record_of(path: Path, *, paired: bool) -> Mapping[str, Any] | None:
    """How the pictures were drawn, None where nothing says it, or where it is damaged and the user says the rest."""
    try:
        return record_of(path, SAY)
    except UserError:
        if paired:
            return None
        raise


def _drawn_with(record: Mapping[str, Any]) -> tuple[DrawingModelConfig, Stored] | None:
    """The model that the drawing began with, and the one that it ended with; None where they are not there any more."""
    runs = runs_of(record)
    if not runs:
        return None
    try:
        first, last = find_stored(runs[0], "auto"), find_stored(runs[-1], "auto")
    except UserError:
        return None
    return (first.config, last) if isinstance(first.config, DrawingModelConfig) else None


def _not_drawn_of(
    config: EvaluateSamplesConfig,
    path: Path,
    record: Mapping[str, Any] | None,
    stored: tuple[DrawingModelConfig, Stored] | None,
) -> str | None:
    """Why pictures are not known to be made of the images of the split, and what to do; None where they are."""
    if record is None:
        return f"nothing beside {path.name} says which image of the split each was made of: {SAY}"
    if stored is None:
        return f"the run that {RECORD} names is not there any more: {SAY}"
    model, last = stored
    if model.shrinks is None:
        return "the model that drew them enlarges nothing: evaluate what an upsampler drew"
    given = next((key for key in GIVEN if key not in ("classes", "prompts") and record.get(key) is not None), None)
    if given is not None:
        return f"they were drawn of {given}={record[given]}, not of a data set: {SAY}"
    data = None if last.train is None else last.train.data
    assert config.data is not None
    if data is None or Path(data.path).resolve() != Path(config.data.path).resolve():
        of = "a data set that is not known" if data is None else data.path
        return f"they were drawn of {of}, not of {config.data.path}: give the data that they were drawn of"
    drawn_of, requested = data.split_called(record.get("split", "train")), config.data.split_called(config.split)
    if drawn_of != requested:
        return f"they were drawn of split {drawn_of}, not of {requested}: give split={record.get('split', 'train')}"
    return None
