"""The keys of every command that works on a stored model: where it runs, and where its records go."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.data import DataConfig
from difflab.config.guidance import Weights
from difflab.config.logger import LoggerConfig
from difflab.config.ranks import RanksConfig


class WorkConfig(Config):
    """What every command has that works on a stored model: where it runs, and where its records go."""

    batch_size: Annotated[int, Field(ge=1)]
    """Samples that each process works on at once."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    """The kind of device: auto, cpu, gpu, cuda or mps; auto takes a GPU where there is one."""
    devices: Annotated[int, Field(ge=1)] | Literal["auto"]
    """Processes, each with its share of the samples; auto = one for each GPU, one on a CPU."""
    ranks: RanksConfig = RanksConfig()
    """How long several processes wait for a silent one."""
    out: str | None
    """Where what comes out goes; null = a folder beside the model."""


class MeasuringConfig(WorkConfig):
    """A command whose numbers are logged."""

    logger: LoggerConfig
    """Where numbers are logged; null (false, where it has no options) leaves one out."""


class MeasuringImagesConfig(MeasuringConfig):
    """What is measured of a stored model on real images."""

    run: str | None
    """A run directory, an exported folder, or a checkpoint file."""
    data: DataConfig | None = None
    """The data set; null = the one the run was trained on."""
    split: str
    """The part of the data set that is measured: train, val, or a name or glob of shards."""
    n: Annotated[int, Field(ge=1)]
    """How many images of the split, the first ones."""
    seed: Annotated[int, Field(ge=0)]
    """Of the noise; that of an image depends on the seed and its place in the split alone."""
    weights: Weights
    """The averaged (ema) or the raw weights; auto = averaged where the run keeps some."""
    precision: Literal["32-true", "bf16-mixed"]
    """Of the network's arithmetic: 32-true or bf16-mixed."""
    compile: Literal["auto"] | bool = "auto"
    """Whether torch compiles the network; auto where the work is enough to pay for it."""

    @model_validator(mode="after")
    def _there_is_a_model(self) -> Self:
        if self.run is None:
            raise ValueError(
                "run has no value: give one, as in run=... (a run directory, an exported folder or a checkpoint)"
            )
        return self
