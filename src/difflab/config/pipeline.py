"""The `pipeline` group: the trained models that generate an image together."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.editing import EditingConfig
from difflab.config.guidance import GuidanceConfig, Weights
from difflab.config.sampler import SamplerConfig, refuse_inversion


class SinglePipelineConfig(Config):
    """One model, with the top-level `run`, `weights`, `sampler` and `guidance`."""

    kind: Literal["single"]


class StageConfig(EditingConfig):
    """One model of a cascade; run is a run directory, an exported folder or a checkpoint.

    With `start` and `inverted`, of the keys of `EditingConfig`, the first stage starts from `images`, and every other
    stage from the output of the previous stage, enlarged to its own size.
    """

    run: str
    """A run directory, an exported folder or a checkpoint."""
    weights: Weights = "auto"
    """The averaged (ema) or the raw weights; auto = averaged if the run keeps averages."""
    sampler: SamplerConfig
    """The sampler of this stage."""
    guidance: GuidanceConfig
    """The guidance of this stage."""
    end: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The fraction of the sampler's steps left out at the end, so that the next stage continues from the noise left."""
    continues: bool = False
    """Continue from the x of the previous stage, at its noise level; `start` may repeat where that is."""


class CascadePipelineConfig(Config):
    """Models in sequence: the first generates an image, and each further one enlarges the previous output (ADM-U),
    continues from its noise level (eDiff-I's experts, SDXL's refiner), or starts from its noised image (SDEdit).
    """

    kind: Literal["cascade"]
    stages: Annotated[dict[str, StageConfig], Field(min_length=2)]
    """Two or more models in order, under names of your own."""

    @model_validator(mode="after")
    def _every_stage_draws(self) -> Self:
        for name, stage in self.stages.items():
            refuse_inversion(stage.sampler, f"stages.{name}.sampler")
        return self

    @model_validator(mode="after")
    def _noise_is_handed_on(self) -> Self:
        named = list(self.stages.items())
        (first, begins), (last, ends) = named[0], named[-1]
        if begins.continues:
            raise ValueError(f"stages.{first}.continues=true, but no stage comes before it: leave it out")
        if ends.end > 0:
            raise ValueError(
                f"stages.{last}.end={ends.end:g} leaves noise in its images, and no stage comes after it: leave "
                f"stages.{last}.end out, or give a stage that continues"
            )
        for (before, earlier), (name, stage) in pairwise(named):
            if earlier.end > 0 and not stage.continues:
                raise ValueError(
                    f"stages.{before}.end={earlier.end:g} leaves noise in its images, and stages.{name} does not "
                    f"continue from there: set stages.{name}.continues=true, or stages.{before}.end=0"
                )
            if stage.continues and earlier.end == 0:
                raise ValueError(
                    f"stages.{name}.continues=true, but stages.{before} leaves no noise: set stages.{before}.end to "
                    f"the fraction of the steps left to {name}, such as 0.2, or start from its noised image, "
                    f"as in stages.{name}.start=0.2 stages.{name}.continues=false"
                )
            if stage.continues and stage.inverted:
                raise ValueError(f"stages.{name}: continues and inverted both determine where x starts: leave one out")
        return self


class ResizePipelineConfig(Config):
    """The low-resolution images of the upsampler `run`, enlarged by a filter: the baseline for upsamplers."""

    kind: Literal["resize"]
    filter: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    """The filter: nearest, bilinear or bicubic."""


PipelineConfig = Annotated[
    SinglePipelineConfig | CascadePipelineConfig | ResizePipelineConfig, Field(discriminator="kind")
]
