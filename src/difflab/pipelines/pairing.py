"""What a pipeline's samples are compared with one by one: the low-resolution images, and the originals."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.conditioning.low_resolution import LowResolution, build_low_resolution
from difflab.config.model import DrawingModelConfig
from difflab.metrics.paired import Pairs
from difflab.pipelines.base import Pipeline
from difflab.seeding import sample_seeds
from difflab.types import Batch

ORIGINAL, LOW_RES = "image", "low_res"
"""The fields of a request that hold them."""


def pairs_of(pipeline: Pipeline, seed: int) -> Pairs:
    """The pairs of the samples that `pipeline` generates with `seed`.

    The original of a sample is the `image` of its request, from which the first stage's condition is made or beside
    which it is given; from a data split it has the size of the last stage. The low-resolution image is the input of the
    first enlarging stage, from the request or from the stage before it.
    """
    first, fields = pipeline.enlarging, pipeline.request.fields
    if first is None:
        return _of_condition(pipeline, seed)
    low_resolution = list(pipeline.stages.values())[first].low_resolution
    assert low_resolution is not None, "it enlarges"
    requested = LOW_RES in fields or (first == 0 and ORIGINAL in fields)
    unpaired = _unpaired(pipeline, first)

    def of(indices: Sequence[int]) -> Batch:
        batch = pipeline.request(indices, seed)
        pairs = {"original": batch[ORIGINAL]} if unpaired is None else {}
        if not requested:
            return pairs
        given = batch[LOW_RES] if LOW_RES in fields else None
        # As the first stage makes it of the same sample.
        made = low_resolution(batch[ORIGINAL], sample_seeds(seed, indices)) if given is None else given
        return {**pairs, LOW_RES: made}

    known = requested or unpaired is None
    return Pairs(of if known else Pairs.of, pipeline.last.shape, low_resolution.downsampling, unpaired)


def low_resolution_of(model: DrawingModelConfig) -> LowResolution | None:
    """How the low-resolution images of a model are made from full-size ones; None if it enlarges nothing."""
    return None if model.shrinks is None else build_low_resolution(model.shrinks)


def _of_condition(pipeline: Pipeline, seed: int) -> Pairs:
    """The pairs of a pipeline that enlarges nothing: the images that its samples are variations of."""
    shape, lacks = pipeline.last.shape, "this model enlarges nothing: evaluate an upsampler"
    if ORIGINAL not in next(iter(pipeline.stages.values())).stand_ins.values():
        return Pairs(shape=shape, unpaired=lacks, enlarges_nothing=lacks)
    if ORIGINAL not in pipeline.request.fields:
        without = "the images that samples are drawn from are not known: give images=FOLDER, or draw from the data"
        return Pairs(shape=shape, unpaired=without, enlarges_nothing=lacks)
    return Pairs(lambda indices: {"original": pipeline.request(indices, seed)[ORIGINAL]}, shape, enlarges_nothing=lacks)


def _unpaired(pipeline: Pipeline, first: int) -> str | None:
    """Why the samples have no originals, and what to do about it; None if they have."""
    fields, wanted = pipeline.request.fields, pipeline.wanted
    if ORIGINAL in wanted.reads:
        return "sampling begins with the image itself, or keeps a part of it: leave start and mask out"
    if first > 0:
        return (
            "the enlarged images are samples of the stage before: begin with the stage that enlarges images of the data"
        )
    if ORIGINAL not in fields:
        return (
            "low_res was given without it: leave low_res out for images of the data set (split=val), or give the "
            "originals beside it, as in images=FOLDER"
        )
    return None
