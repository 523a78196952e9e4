"""Finds the original in a data split of each of some given images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from difflab.config.model import DrawingModelConfig
from difflab.config.request import GIVEN
from difflab.config.sample import EvaluateSamplesConfig
from difflab.errors import UserError
from difflab.metrics.paired import Pairs
from difflab.pipelines.pairing import LOW_RES, low_resolution_of
from difflab.pipelines.stored import Stored, find_stored
from difflab.requests.data_split import DataSplit
from difflab.requests.drawings import RECORD, record_of, runs_of, seed_of
from difflab.seeding import sample_seeds
from difflab.types import Batch

SAY = "give paired=true if sample i was made from image i of the split"


def pairs_of_given(config: EvaluateSamplesConfig, path: Path, n: int, shape: tuple[int, int, int]) -> Pairs:
    """The pairs of the first n images of the folder or archive `path`, each of (C, H, W) `shape`.

    They have originals if `difflab sample` made them from the same split of the same data, according to its sample.json
    and its run, or if the user sets `paired`.
    Raises UserError if the user sets it and there are more samples than originals, and for a damaged sample.json.
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
            f"paired=true, but there are {n} samples and {len(originals)} images in split {config.split}: give n="
            f"{len(originals)} or less, or the split that they were made from"
        )

    low_resolution = None if stored is None else low_resolution_of(stored[0])
    if low_resolution is None:
        return Pairs(lambda indices: {"original": originals(indices, 0)["image"]}, shape)
    seed = seed_of(record or {}) if low_resolution.degradation is not None else 0

    def of(indices: Sequence[int]) -> Batch:
        images = originals(indices, 0)["image"]
        return {"original": images, LOW_RES: low_resolution(images, sample_seeds(seed, indices))}

    return Pairs(of, shape, low_resolution.downsampling)


def _unpaired(why: str, shape: tuple[int, int, int]) -> Pairs:
    return Pairs(shape=shape, unpaired=why, enlarges_nothing=why)


def _record_of(path: Path, *, paired: bool) -> Mapping[str, Any] | None:
    """How the images were generated; None if not recorded, or if the record is damaged and the user sets `paired`."""
    try:
        return record_of(path, SAY)
    except UserError:
        if paired:
            return None
        raise


def _drawn_with(record: Mapping[str, Any]) -> tuple[DrawingModelConfig, Stored] | None:
    """The model of the first stage, and the stored model of the last; None if they no longer exist."""
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
    """Why the images are not known to be made from those of the split, and what to do; None if they are."""
    if record is None:
        return f"nothing beside {path.name} records which image of the split each was made from: {SAY}"
    if stored is None:
        return f"the run named in {RECORD} no longer exists: {SAY}"
    model, last = stored
    if not model.from_image:
        return "they are not drawn from images, as those of an upsampler are: evaluate the samples of one"
    given = next((key for key in GIVEN if key not in ("classes", "prompts") and record.get(key) is not None), None)
    if given is not None:
        return f"they were made from {given}={record[given]}, not from a data set: {SAY}"
    data = None if last.train is None else last.train.data
    assert config.data is not None
    if data is None or Path(data.path).resolve() != Path(config.data.path).resolve():
        of = "an unknown data set" if data is None else data.path
        return f"they were made from {of}, not from {config.data.path}: give the data that they were made from"
    drawn_of, requested = data.split_called(record.get("split", "train")), config.data.split_called(config.split)
    if drawn_of != requested:
        return f"they were made from split {drawn_of}, not from {requested}: give split={record.get('split', 'train')}"
    return None
