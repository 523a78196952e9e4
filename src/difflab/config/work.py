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
    """batch_size: samples of each process at once.
    devices: processes, each with its share of the samples; auto = one for each GPU, one on a CPU.
    ranks: how long they wait for a silent one.
    out: where what comes out goes; null = a folder beside the model.
    """

    batch_size: Annotated[int, Field(ge=1)]
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Annotated[int, Field(ge=1)] | Literal["auto"]
    ranks: RanksConfig = RanksConfig()
    out: str | None


class MeasuringConfig(WorkConfig):
    """logger: where numbers are logged."""

    logger: LoggerConfig


class MeasuringImagesConfig(MeasuringConfig):
    """What is measured of a stored model on real images.

    run: a run directory, an exported folder, or a checkpoint file.
    data: the data set; null = the one the run was trained on. `split` is the part of it, n how many of its images.
    seed: of the noise; that of an image depends on the seed and its place in the split alone.
    weights: the averaged (ema) or the raw weights; auto = the averaged ones where the run keeps some.
    precision: of the network's arithmetic.
    compile: whether torch compiles the network; auto where the work is enough to pay for it.
    """

    run: str | None
    data: DataConfig | None = None
    split: str
    n: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    weights: Weights
    precision: Literal["32-true", "bf16-mixed"]
    compile: Literal["auto"] | bool = "auto"

    @model_validator(mode="after")
    def _there_is_a_model(self) -> Self:
        if self.run is None:
            raise ValueError(
                "run has no value: give one, as in run=... (a run directory, an exported folder or a checkpoint)"
            )
        return self
