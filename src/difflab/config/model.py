"""What a stored model is: enough to rebuild it and to draw from it, without the run that trained it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from difflab.config.base import Config
from difflab.config.conditioning import ConditioningConfig
from difflab.config.diffusion import DiffusionConfig
from difflab.config.guidance import GuidanceConfig
from difflab.config.network import NetworkConfig
from difflab.config.sampler import SamplerConfig
from difflab.config.train import TrainConfig


class ModelConfig(Config):
    """Stands in `config.json` beside exported weights, and is read out of a run's `config.yaml`.

    sampler and guidance are what the run used for its own pictures: defaults, not part of the model.
    """

    experiment: str
    image_size: Annotated[int, Field(gt=0)]
    channels: Annotated[int, Field(gt=0)]
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
            image_size=config.data.image_size,
            channels=config.data.channels,
            diffusion=config.diffusion,
            network=config.network,
            conditioning=config.conditioning,
            sampler=config.sampler,
            guidance=config.guidance,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
        return (self.channels, self.image_size, self.image_size)
