"""The configurations of `difflab sample` and `difflab evaluate`: a stored run and how to sample it, or samples."""

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
from difflab.text.config import TooLong

Side = Annotated[int, Field(ge=1)]
Preview = Literal["decoder", "linear"]


class DrawConfig(WorkConfig, RequestConfig, EditingConfig):
    """What sampling and evaluation share; the keys of `RequestConfig` determine what samples should show, and those of
    `EditingConfig` how an image is used.
    """

    run: str | None
    """A run directory, an exported folder, or a checkpoint file; a cascade has one for each stage instead."""
    pipeline: PipelineConfig = SinglePipelineConfig(kind="single")
    """Which models generate the samples: single = the run; cascade = stages with their own runs, samplers and guidance;
    resize = none."""
    split: str
    """The split of the data set that supplies fields not given in the request."""
    n: Annotated[int, Field(ge=1)]
    """Number of samples; sample i depends on (seed, i) alone."""
    too_long: TooLong | None = None
    """Whether captions with more tokens than the model takes are refused or truncated; null = as in training."""
    seed: Annotated[int, Field(ge=0)]
    """The seed of the noise, and of randomly drawn classes."""
    weights: Literal["ema", "raw"]
    """The averaged (ema) or the raw weights."""
    rounding: Literal["truncate", "nearest", "edm"]
    """The conversion from floats to uint8, as in an official code: truncate, nearest or edm."""
    precision: Literal["auto", "32-true", "bf16-mixed"]
    """The precision of the networks; auto = bf16 autocast if it is faster on the device, fp32 otherwise."""
    compile: Literal["auto"] | bool = "auto"
    """Whether to use torch.compile on the networks; auto = if there are enough samples to pay for it."""
    sampler: SamplerConfig
    """How samples are generated; the run's own sampler by default."""
    guidance: GuidanceConfig
    """How predictions are guided; the run's own guidance by default."""

    @model_validator(mode="after")
    def _an_image_is_used(self) -> Self:
        edits = {"mask": self.mask is not None, "start": self.start is not None, "inverted": self.inverted}
        edited = next((key for key, given in edits.items() if given), None)
        if self.pipeline.kind == "resize" and edited is not None:
            raise ValueError(f"{edited} cannot be used with pipeline=resize, which runs no model: leave it out")
        if self.pipeline.kind == "cascade":
            first = next(iter(self.pipeline.stages))
            # A mask applies to every stage.
            own = [key for key in EDITING if getattr(self, key) != EditingConfig.model_fields[key].default]
            if own:
                raise ValueError(
                    f"{own[0]} cannot be used with a cascade, whose stages have their own: set pipeline.stages.{first}."
                    f"{own[0]}"
                )
        places: list[tuple[str, EditingConfig]] = [("", self)]
        if self.pipeline.kind == "cascade":
            places += [(f"pipeline.stages.{name}.", stage) for name, stage in self.pipeline.stages.items()]
        for place, editing in places:
            if editing.inpaint.resamplings > 1 and self.mask is None and self.request is None:
                raise ValueError(
                    f"{place}inpaint.resamplings has no effect without a mask: give mask=, or leave it out"
                )
        return self

    @model_validator(mode="after")
    def _there_is_a_model(self) -> Self:
        if self.pipeline.kind == "cascade":
            if self.run is not None:
                raise ValueError(
                    f"run={self.run} cannot be used with a cascade: set the runs of its stages, as in "
                    f"pipeline.stages.{next(iter(self.pipeline.stages))}.run={self.run}"
                )
        elif self.run is None:
            raise ValueError(
                "run has no value: give one, as in run=... (a run directory, an exported folder or a checkpoint)"
            )
        return self


class SampleConfig(DrawConfig):
    """`difflab sample`.

    out: Where images are written; null = <run>/samples/<sampler>-<steps>-seed<seed>-<hash of the rest>.
    """

    size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    """Pixels per side of the samples, or [height, width]; null = the size of the training images. A convolutional
    network draws other sizes too, the worse the further they are from that."""
    npz: bool
    """Also write the ADM archive (arr_0 uint8 NHWC, arr_1 labels)."""
    png: bool
    """Write one PNG file per sample."""
    grid: bool
    """Also write a grid of the first 256 samples."""
    columns: Annotated[int, Field(ge=1)]
    """The number of columns of the grid."""
    trajectory: Annotated[int, Field(ge=0)]
    """The number of intermediate predictions to show for the first samples; 0 = none."""

    preview: Preview = "decoder"
    """How those of latents become images: each by the decoder, or by a linear map to colours that is fitted on the last
    of them: coarse, and almost for nothing."""

    @model_validator(mode="after")
    def _what_is_given_is_used(self) -> Self:
        if self.pipeline.kind != "single" and self.size is not None:
            raise ValueError(f"size cannot be used with pipeline={self.pipeline.kind}: leave it out")
        if self.preview != "decoder" and not self.trajectory:
            raise ValueError(f"preview={self.preview} has no effect without a trajectory: set trajectory=8")
        return self


class EvaluateConfig(DrawConfig, MeasuringConfig, JudgedConfig):
    """`difflab evaluate`.

    out: Where the records go; null = <run>/evaluations/<sampler>-<steps>-seed<seed>-<hash of the rest>-n<n>. They are
        also appended to the run's evaluations.jsonl.
    """

    data: DataConfig | None = None


class EvaluateSamplesConfig(MeasuringConfig, JudgedConfig):
    """`difflab evaluate samples=...`: existing images.

    out: Where the records go; null = evaluations/<name>-<hash>-n<n> beside the samples, or beside the folder that
        `difflab sample` wrote their archive into.
    """

    samples: Annotated[str, Field(min_length=1)]
    """A folder of images, with one subfolder per class if there are any, or an archive as `difflab sample` and ADM's
    scripts write it: arr_0 uint8 [n, H, W, C] and, with classes, arr_1 [n]."""
    data: DataConfig | None = None
    """The reference data set, of which `split` is used; null = none."""
    split: str
    """The split of the data set: train, val, or a name or glob of shards."""
    prompts: Annotated[list[str], Field(min_length=1)] | Annotated[str, Field(min_length=1)] | None = None
    """The captions of the images in order, taken in turn if there are fewer, as a list or a text file with one per
    line, for metrics that compare the two; null = none."""
    n: Annotated[int, Field(ge=1)] | None
    """The number of samples to evaluate, from the first; null = all."""
    paired: bool = False
    """Whether sample i was made from image i of the split, for metrics that compare the two. `difflab sample` records
    this itself."""
