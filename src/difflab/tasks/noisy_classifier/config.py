"""The configuration of noisy classifier runs, and of the models that they train."""

from __future__ import annotations

from typing import ClassVar, Literal

from difflab.config.classifier import ClassifierModelConfig, ClassifierNetwork, ClassifierTrainConfig
from difflab.config.diffusion import DiffusionConfig
from difflab.config.model import NoisedModelConfig
from difflab.config.task import TASKS


class NoisyClassifierModelConfig(ClassifierModelConfig, NoisedModelConfig):
    """A network that classifies noised images."""

    title: ClassVar[str] = "a noisy classifier"
    use: ClassVar[str | None] = "sample run=... guidance=classifier guidance.run={run}"

    task: Literal["noisy_classifier"] = "noisy_classifier"
    network: ClassifierNetwork


@TASKS.register(
    NoisyClassifierModelConfig,
    build_model="difflab.tasks.noisy_classifier.build:build_model",
    build_module="difflab.tasks.noisy_classifier.build:build_module",
)
class NoisyClassifierTrainConfig(ClassifierTrainConfig):
    """`task=noisy_classifier`: trains a classifier of noised images, so that it can guide a diffusion model (ADM,
    section 4).

    diffusion: only its noise schedule and timesteps are used.
    """

    task: Literal["noisy_classifier"]
    diffusion: DiffusionConfig

    def model(self) -> NoisyClassifierModelConfig:
        return self.stored_as(NoisyClassifierModelConfig)
