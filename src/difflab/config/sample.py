"""The configurations of `difflab sample` and `difflab evaluate`: a stored run and how to draw from it, or samples."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.data import DataConfig
from difflab.config.editing import EDITING, EditingConfig
from difflab.config.guidance import GuidanceConfig
from difflab.config.metrics import JudgedConfig
from difflab.config.pipeline import PipelineConfig, SinglePipelineConfig
from difflab.config.request import RequestConfig
from difflab.config.sampler import SamplerConfig
from difflab.config.work import MeasuringConfig, WorkConfig


class DrawConfig(WorkConfig, RequestConfig, EditingConfig):
    """What sampling and evaluation share; what samples have to show is said by the keys of `RequestConfig`, and how an
    image is used by those of `EditingConfig`.
    """

    run: str | None
    """A run directory, an exported folder, or a checkpoint file. A cascade names those of its stages instead."""
    pipeline: PipelineConfig = SinglePipelineConfig(kind="single")
    """Which models draw: single = the run alone; cascade = stages with their own runs, samplers and guidance; resize =
    none."""
    split: str
    """The part of the data set that is asked for where nothing is given."""
    n: Annotated[int, Field(ge=1)]
    """Number of samples; sample i depends on (seed, i) alone."""
    seed: Annotated[int, Field(ge=0)]
    """Of the noise of the samples, and of classes that are drawn."""
    weights: Literal["ema", "raw"]
    """The averaged (ema) or the raw weights."""
    rounding: Literal["truncate", "nearest", "edm"]
    """From floats to uint8, by the rule of an official code: truncate, nearest or edm."""
    precision: Literal["auto", "32-true", "bf16-mixed"]
    """Of the networks' arithmetic; auto = bf16 autocast where the device makes it faster, fp32 elsewhere."""
    compile: Literal["auto"] | bool = "auto"
    """Whether torch compiles the networks; auto where there is enough to draw to pay for it."""
    sampler: SamplerConfig
    """How samples are drawn; the run's own where nothing is chosen."""
    guidance: GuidanceConfig
    """How predictions are steered; the run's own where nothing is chosen."""

    @model_validator(mode="after")
    def _an_image_is_used(self) -> Self:
        edits = {"mask": self.mask is not None, "start": self.start is not None, "inverted": self.inverted}
        edited = next((key for key, given in edits.items() if given), None)
        if self.pipeline.kind == "resize" and edited is not None:
            raise ValueError(f"{edited} has no place in pipeline=resize: a model draws from an image")
        if self.pipeline.kind == "cascade":
            first = next(iter(self.pipeline.stages))
            # A mask holds in every stage.
            own = [key for key in EDITING if getattr(self, key) != EditingConfig.model_fields[key].default]
            if own:
                raise ValueError(
                    f"{own[0]} has no place in a cascade, whose stages have their own: give pipeline.stages.{first}."
                    f"{own[0]}"
                )
        places: list[tuple[str, EditingConfig]] = [("", self)]
        if self.pipeline.kind == "cascade":
            places += [(f"pipeline.stages.{name}.", stage) for name, stage in self.pipeline.stages.items()]
        for place, editing in places:
            if editing.inpaint.resamplings > 1 and self.mask is None and self.request is None:
                raise ValueError(
                    f"{place}inpaint.resamplings harmonises what a mask leaves known: give mask=, or leave it out"
                )
        return self

    @model_validator(mode="after")
    def _there_is_a_model(self) -> Self:
        if self.pipeline.kind == "cascade":
            if self.run is not None:
                raise ValueError(
                    f"run={self.run} has no place in a cascade: name the runs of its stages, as in "
                    f"pipeline.stages.{next(iter(self.pipeline.stages))}.run={self.run}"
                )
        elif self.run is None:
            raise ValueError(
                "run has no value: give one, as in run=... (a run directory, an exported folder or a checkpoint)"
            )
        return self


class SampleConfig(DrawConfig):
    """`difflab sample`.

    out: Where pictures go; null = <run>/samples/<sampler>-<steps>-seed<seed>-<hash of the rest>.
    """

    npz: bool
    """Also write the ADM archive (arr_0 uint8 NHWC, arr_1 labels)."""
    png: bool
    """Write a file for every sample."""
    grid: bool
    """Also write one picture of the first 256 samples."""
    columns: Annotated[int, Field(ge=1)]
    """How many samples stand side by side in it."""
    trajectory: Annotated[int, Field(ge=0)]
    """Moments of the way from noise that are drawn of the first samples, 0 = none."""


class EvaluateConfig(DrawConfig, MeasuringConfig, JudgedConfig):
    """`difflab evaluate`.

    out: Where the records go; null = <run>/evaluations/<sampler>-<steps>-seed<seed>-<hash of the rest>-n<n>. They are
        also added to the run's evaluations.jsonl.
    """

    data: DataConfig | None = None


class EvaluateSamplesConfig(MeasuringConfig, JudgedConfig):
    """`difflab evaluate samples=...`: pictures that are made already.

    out: Where the records go; null = evaluations/<name>-<hash>-n<n> beside the samples (beside the folder of a drawing
        whose archive they are), never among pictures of `difflab sample`.
    """

    samples: Annotated[str, Field(min_length=1)]
    """A folder of images, with a folder per class if they have classes, or an archive as `difflab sample` and ADM's
    scripts write it: arr_0 uint8 [n, H, W, C] and, with classes, arr_1 [n]."""
    data: DataConfig | None = None
    """The data set compared with, of which `split` is the part; null = none."""
    split: str
    """The part of the data set: train, val, or a name or glob of shards."""
    n: Annotated[int, Field(ge=1)] | None
    """The first so many of them; null = all."""
    paired: bool = False
    """Whether picture i was made of image i of the split, for metrics that compare the two. What `difflab sample` drew
    of a data set says so itself."""
