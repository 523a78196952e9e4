"""The `pipeline` group: which trained parts draw a picture together."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.guidance import GuidanceConfig, Weights
from difflab.config.sampler import SamplerConfig, refuse_inversion


class SinglePipelineConfig(Config):
    """One model: `run`, `weights`, `sampler` and `guidance` of the drawing itself."""

    kind: Literal["single"]


class StageConfig(Config):
    """One model of a cascade; run is a run directory, an exported folder or a checkpoint."""

    run: str
    weights: Weights = "auto"
    sampler: SamplerConfig
    guidance: GuidanceConfig


class CascadePipelineConfig(Config):
    """Models one after the other: the first draws, each further one enlarges what the one before it drew (ADM-U)."""

    kind: Literal["cascade"]
    stages: Annotated[dict[str, StageConfig], Field(min_length=2)]

    @model_validator(mode="after")
    def _every_stage_draws(self) -> Self:
        for name, stage in self.stages.items():
            refuse_inversion(stage.sampler, f"stages.{name}.sampler")
        return self


class ResizePipelineConfig(Config):
    """The low-resolution images of the upsampler `run`, enlarged by a filter: what it has to be better than."""

    kind: Literal["resize"]
    filter: Literal["nearest", "bilinear", "bicubic"] = "bicubic"


PipelineConfig = Annotated[
    SinglePipelineConfig | CascadePipelineConfig | ResizePipelineConfig, Field(discriminator="kind")
]
