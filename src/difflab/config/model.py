"""What a stored model is: enough to rebuild it and to draw from it, without the run that trained it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.conditioning import ConditioningConfig
from difflab.config.diffusion import DiffusionConfig
from difflab.config.guidance import GuidanceConfig
from difflab.config.network import NetworkConfig
from difflab.config.sampler import SamplerConfig
from difflab.config.train import Task, TrainConfig, refuse_other_task


class ModelConfig(Config):
    """Stands in `config.json` beside exported weights, and is read out of a run's `config.yaml`.

    task: what the network does, denoise an image or tell its class; exports of before there was a choice denoise.
    class_names: what the classes of its data are called, in the order of the labels, where that is known.
    sampler and guidance are what the run used for its own pictures: defaults, not part of the model.
    """

    experiment: str
    task: Task = "denoising"
    image_size: Annotated[int, Field(gt=0)]
    channels: Annotated[int, Field(gt=0)]
    class_names: list[str] | None = None
    diffusion: DiffusionConfig
    network: NetworkConfig
    conditioning: ConditioningConfig
    sampler: SamplerConfig
    guidance: GuidanceConfig

    @classmethod
    def of(cls, config: TrainConfig) -> ModelConfig:
        """The model that a training configuration trains."""
        return cls(
            experiment=config.experiment,
            task=config.task,
            image_size=config.data.image_size,
            channels=config.data.channels,
            class_names=config.data.class_names,
            diffusion=config.diffusion,
            network=config.network,
            conditioning=config.conditioning,
            sampler=config.sampler,
            guidance=config.guidance,
        )

    @model_validator(mode="after")
    def _network_fits_task(self) -> ModelConfig:
        refuse_other_task(self.task, self.network)
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
        return (self.channels, self.image_size, self.image_size)
