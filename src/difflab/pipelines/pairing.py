"""What the samples of a pipeline are compared with one by one: the images that they enlarge, and the originals."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.config.model import DrawingModelConfig
from difflab.images import Downsampling
from difflab.metrics.paired import Pairs
from difflab.pipelines.base import Pipeline
from difflab.types import Batch

ORIGINAL, LOW_RES = "image", "low_res"
"""The fields of a request that they are."""


def pairs_of(pipeline: Pipeline, seed: int) -> Pairs:
    """Of the samples that `pipeline` draws with `seed`.

    The original of a sample is the `image` of its request, which `low_res` is made of, or which is given beside it:
    that of a data split has the size of the last stage. What a sample enlarges is what the first stage that enlarges
    any is given, by the request or by the stage before it.
    """
    first, fields = pipeline.enlarging, pipeline.request.fields
    if first is None:
        lacks = "this model enlarges nothing: evaluate an upsampler"
        return Pairs(shape=pipeline.last.shape, unpaired=lacks, enlarges_nothing=lacks)
    downsampling = list(pipeline.stages.values())[first].downsampling
    requested = LOW_RES in fields or (first == 0 and ORIGINAL in fields)
    unpaired = _unpaired(pipeline, first)

    def of(indices: Sequence[int]) -> Batch:
        batch = pipeline.request(indices, seed)
        pairs = {"original": batch[ORIGINAL]} if unpaired is None else {}
        if not requested:
            return pairs
        assert downsampling is not None
        return {**pairs, LOW_RES: batch[LOW_RES] if LOW_RES in fields else downsampling(batch[ORIGINAL])}

    return Pairs(of if requested or unpaired is None else Pairs.of, pipeline.last.shape, downsampling, unpaired)


def downsampling_of(model: DrawingModelConfig) -> Downsampling | None:
    """How the images that a model enlarges are made of an image; None where it enlarges nothing."""
    return None if model.shrinks is None else Downsampling(*model.shrinks)


def _unpaired(pipeline: Pipeline, first: int) -> str | None:
    """Why no sample has an original, and what to do about it; None where each has one."""
    fields, wanted = pipeline.request.fields, pipeline.wanted
    if ORIGINAL in wanted.reads:
        return "the drawing begins with the image itself, or keeps a part of it: leave start and mask out"
    if first > 0:
        return "what is enlarged was drawn by the stage before: begin with the stage that enlarges images of the data"
    if ORIGINAL not in fields:
        return (
            "low_res was given without it: leave low_res out for images of the data set (split=val), or give the "
            "originals beside it, as in images=FOLDER"
        )
    return None
