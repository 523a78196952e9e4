"""The `pipeline` group: which trained parts draw a picture together."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.editing import EditingConfig
from difflab.config.guidance import GuidanceConfig, Weights
from difflab.config.sampler import SamplerConfig, refuse_inversion


class SinglePipelineConfig(Config):
    """One model: `run`, `weights`, `sampler` and `guidance` of the drawing itself."""

    kind: Literal["single"]


class StageConfig(EditingConfig):
    """One model of a cascade; run is a run directory, an exported folder or a checkpoint.

    Of the keys of `EditingConfig`, `start` and `inverted` begin the first stage with `images`, and every other one with
    what the stage before it drew, enlarged to its own size.
    """

    run: str
    """A run directory, an exported folder or a checkpoint."""
    weights: Weights = "auto"
    """The averaged (ema) or the raw weights; auto = averaged where the run keeps some."""
    sampler: SamplerConfig
    """How this stage draws."""
    guidance: GuidanceConfig
    """How the predictions of this stage are steered."""
    end: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of the sampler's steps left out at the end, so that noise is left for the next stage."""
    continues: bool = False
    """Take x over as the stage before left it, at its noise; `start` may say again where that is."""


class CascadePipelineConfig(Config):
    """Models one after the other: the first draws, each further one enlarges what the one before it drew (ADM-U), goes
    on from its noise (eDiff-I's experts, SDXL's refiner), or begins with its image at some noise (SDEdit).
    """

    kind: Literal["cascade"]
    stages: Annotated[dict[str, StageConfig], Field(min_length=2)]
    """Two or more models in their order, by names of your own."""

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
                f"stages.{last}.end={ends.end:g} leaves noise in what it draws, and no stage comes after it: leave "
                f"stages.{last}.end out, or give a stage that continues"
            )
        for (before, earlier), (name, stage) in pairwise(named):
            if earlier.end > 0 and not stage.continues:
                raise ValueError(
                    f"stages.{before}.end={earlier.end:g} leaves noise in what it draws, and stages.{name} does not go "
                    f"on from there: set stages.{name}.continues=true, or stages.{before}.end=0"
                )
            if stage.continues and earlier.end == 0:
                raise ValueError(
                    f"stages.{name}.continues=true, but stages.{before} leaves no noise: set stages.{before}.end to "
                    f"the share of the steps that is left to {name}, as 0.2, or begin with its image at some noise, "
                    f"as in stages.{name}.start=0.2 stages.{name}.continues=false"
                )
            if stage.continues and stage.inverted:
                raise ValueError(f"stages.{name}: of continues and inverted, both say where x begins: leave one out")
        return self


class ResizePipelineConfig(Config):
    """The low-resolution images of the upsampler `run`, enlarged by a filter: what it has to be better than."""

    kind: Literal["resize"]
    filter: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    """By which images are enlarged: nearest, bilinear or bicubic."""


PipelineConfig = Annotated[
    SinglePipelineConfig | CascadePipelineConfig | ResizePipelineConfig, Field(discriminator="kind")
]
