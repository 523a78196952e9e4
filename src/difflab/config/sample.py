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

    run: a run directory, an exported folder, or a checkpoint file. A cascade names those of its stages instead.
    pipeline: single = the run alone; cascade = stages with their own runs, samplers and guidance; resize = no model.
    split: the part of the data set that is asked for where nothing is given.
    n: number of samples; sample i depends on (seed, i) alone.
    weights: the averaged (ema) or the raw weights.
    rounding: floats to uint8, by the rule of an official code (see difflab.images).
    precision: auto = bf16 autocast where the device makes it faster, fp32 elsewhere.
    compile: whether torch compiles the networks that draw; auto where there is enough to draw to pay for it.
    """

    run: str | None
    pipeline: PipelineConfig = SinglePipelineConfig(kind="single")
    split: str
    n: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    weights: Literal["ema", "raw"]
    rounding: Literal["truncate", "nearest", "edm"]
    precision: Literal["auto", "32-true", "bf16-mixed"]
    compile: Literal["auto"] | bool = "auto"
    sampler: SamplerConfig
    guidance: GuidanceConfig

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
        told: list[tuple[str, EditingConfig]] = [("", self)]
        if self.pipeline.kind == "cascade":
            told += [(f"pipeline.stages.{name}.", stage) for name, stage in self.pipeline.stages.items()]
        for place, editing in told:
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

    out: where pictures go; null = <run>/samples/<sampler>-<steps>-seed<seed>-<hash of the rest>.
    npz: also write the ADM archive (arr_0 uint8 NHWC, arr_1 labels).
    grid: also a picture of the first 256 samples; columns: how many of them stand side by side.
    trajectory: number of moments of the sampling path to draw for the first samples (0 = none).
    """

    npz: bool
    png: bool
    grid: bool
    columns: Annotated[int, Field(ge=1)]
    trajectory: Annotated[int, Field(ge=0)]


class EvaluateConfig(DrawConfig, MeasuringConfig, JudgedConfig):
    """`difflab evaluate`.

    data: the data set compared with; null = the one the run was trained on. `split` is the part of it.
    out: where the records go; null = <run>/evaluations/<sampler>-<steps>-seed<seed>-<hash of the rest>-n<n>. They are
        also added to the run's evaluations.jsonl.
    """

    data: DataConfig | None = None


class EvaluateSamplesConfig(MeasuringConfig, JudgedConfig):
    """`difflab evaluate samples=...`: pictures that are made already.

    samples: a folder of images, or an archive as `difflab sample` and ADM's scripts write it: arr_0 uint8
        [n, H, W, C] and, where they have classes, arr_1 [n]. The classes of a folder are its folders.
    data: the data set compared with, of which `split` is the part; null = none.
    n: the first so many of them; null = all.
    paired: whether picture i was made of image i of the split, for metrics that compare the two. What `difflab sample`
        drew of a data set says so itself.
    out: where the records go; null = evaluations/<name>-<hash>-n<n> beside the samples (beside the folder of a drawing
        whose archive they are), never among pictures of `difflab sample`.
    """

    samples: Annotated[str, Field(min_length=1)]
    data: DataConfig | None = None
    split: str
    n: Annotated[int, Field(ge=1)] | None
    paired: bool = False
