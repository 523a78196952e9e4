"""The whole configuration of a training run."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.callbacks import CallbacksConfig
from difflab.config.conditioning import ConditioningConfig
from difflab.config.data import DataConfig
from difflab.config.diffusion import DiffusionConfig
from difflab.config.guidance import GuidanceConfig
from difflab.config.init import InitConfig
from difflab.config.logger import LoggerConfig
from difflab.config.metrics import MetricsConfig
from difflab.config.network import NetworkConfig
from difflab.config.optimizer import OptimizerConfig
from difflab.config.sampler import SamplerConfig
from difflab.config.trainer import TrainerConfig

RUN_DEFINING = ("experiment", "seed", "diffusion", "network", "conditioning", "optimizer", "data", "init")
"""What makes a run that run: these make its name, and a resumed run must agree on them."""

FREE_IN_DATA = ("path", "workers", "prefetch", "max_bad_fraction")
"""Keys of `data` that may change between two sittings of one run."""


class TrainConfig(Config):
    """`difflab train`.

    name: the run's name below output_root/experiment; made from the configuration when null, so the same command
        goes on with the same run.
    resume: auto = go on from checkpoints/last.ckpt if there is one; never = refuse a directory that holds a run;
        or the path of a checkpoint.
    """

    experiment: str
    name: str | None
    output_root: str
    seed: Annotated[int, Field(ge=0)]
    resume: str
    diffusion: DiffusionConfig
    network: NetworkConfig
    conditioning: ConditioningConfig
    guidance: GuidanceConfig
    sampler: SamplerConfig
    data: DataConfig
    optimizer: OptimizerConfig
    init: InitConfig
    trainer: TrainerConfig
    callbacks: CallbacksConfig
    logger: LoggerConfig
    metrics: MetricsConfig

    @model_validator(mode="after")
    def _parts_fit(self) -> TrainConfig:
        if self.data.batch_size % self.trainer.accumulate:
            raise ValueError(
                f"data.batch_size={self.data.batch_size} cannot be split into trainer.accumulate="
                f"{self.trainer.accumulate} equal parts; choose a divisor of the batch size"
            )
        if self.network.channels != self.data.channels:
            raise ValueError(
                f"network.channels={self.network.channels} but data.channels={self.data.channels}; set them alike"
            )
        for name, conditioner in self.conditioning.items():
            if conditioner.classes != self.data.classes:
                raise ValueError(
                    f"conditioning.{name}.classes={conditioner.classes} but data.classes="
                    f"{'null' if self.data.classes is None else self.data.classes}; set data.classes to the number of "
                    f"classes and leave conditioning.{name}.classes out"
                )
        return self


def run_defining(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a resolved training configuration that makes it this run and no other."""
    kept = {key: config[key] for key in RUN_DEFINING if key in config}
    kept["data"] = {key: value for key, value in config["data"].items() if key not in FREE_IN_DATA}
    return kept
