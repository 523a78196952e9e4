"""The configuration of `difflab accuracy`: a stored classifier, real images, and the noise added to them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from difflab.config.work import MeasuringImagesConfig


class AccuracyConfig(MeasuringImagesConfig):
    """`difflab accuracy`.

    out: where the records go; null = <run>/evaluations/accuracy-<split>-n<n>-<hash of the rest>. They are also added to
        the run's evaluations.jsonl.
    """

    times: Annotated[int, Field(ge=1)] | None = None
    """The number of evenly spaced times of the noise schedule at which every image is noised; null = 20. A classifier
    of clean images has none: every image is classified once."""
