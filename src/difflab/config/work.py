"""The keys of every command that works on a stored model: devices, and where records go."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.data import DataConfig
from difflab.config.guidance import Weights
from difflab.config.logger import LoggerConfig
from difflab.config.ranks import RanksConfig


class WorkConfig(Config):
    """The keys of every command that works on a stored model: devices, and where records go."""

    batch_size: Annotated[int, Field(ge=1)]
    """The batch size of each process."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    """The kind of device: auto, cpu, gpu, cuda or mps; auto = a GPU if there is one."""
    devices: Annotated[int, Field(ge=1)] | Literal["auto"]
    """The number of processes, among which the samples are split; auto = one per GPU, one on a CPU."""
    ranks: RanksConfig = RanksConfig()
    """How long several processes wait for an unresponsive one."""
    out: str | None
    """Where the output goes; null = a folder beside the model."""

    @property
    def without_effect(self) -> frozenset[str]:
        """The keys that change nothing, given the values of the others."""
        return frozenset()


class MeasuringConfig(WorkConfig):
    """A command whose numbers are logged."""

    logger: LoggerConfig
    """Where numbers are logged; null (false, if it has no options) leaves one out."""


class MeasuringImagesConfig(MeasuringConfig):
    """A command that evaluates a stored model on real images."""

    run: str | None
    """A run directory, an exported folder, or a checkpoint file."""
    data: DataConfig | None = None
    """The data set; null = the one the run was trained on."""
    split: str
    """The split of the data set: train, val, or a name or glob of shards."""
    n: Annotated[int, Field(ge=1)]
    """The number of images, from the first of the split."""
    seed: Annotated[int, Field(ge=0)]
    """The seed of the noise; the noise of an image depends only on the seed and its index in the split."""
    weights: Weights
    """The averaged (ema) or the raw weights; auto = averaged if the run keeps averages."""
    precision: Literal["32-true", "bf16-mixed"]
    """The precision of the network: 32-true or bf16-mixed."""
    compile: Literal["auto"] | bool = "auto"
    """Whether to use torch.compile on the network; auto = if there is enough work to pay for it."""

    @model_validator(mode="after")
    def _there_is_a_model(self) -> Self:
        if self.run is None:
            raise ValueError(
                "run has no value: give one, as in run=... (a run directory, an exported folder or a checkpoint)"
            )
        return self
