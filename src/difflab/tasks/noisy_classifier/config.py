"""The configuration of noisy classifier runs, and of the models that they train."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, model_validator

from difflab.config.diffusion import DiffusionConfig
from difflab.config.model import Measurement, NoisedModelConfig
from difflab.config.network import Gives, NetworkConfig, of_other_tasks
from difflab.config.task import TASKS
from difflab.config.train import TrainConfig

ClassifierNetwork = Annotated[NetworkConfig, BeforeValidator(of_other_tasks)]


class NoisyClassifierModelConfig(NoisedModelConfig):
    """A network that classifies noised images."""

    title: ClassVar[str] = "a noisy classifier"
    measures: ClassVar[tuple[Measurement, ...]] = ("accuracy",)

    task: Literal["noisy_classifier"] = "noisy_classifier"
    network: ClassifierNetwork

    @property
    def logits(self) -> int | None:
        return self.network.logits


@TASKS.register(
    NoisyClassifierModelConfig,
    build_model="difflab.tasks.noisy_classifier.build:build_model",
    build_module="difflab.tasks.noisy_classifier.build:build_module",
)
class NoisyClassifierTrainConfig(TrainConfig):
    """`task=noisy_classifier`: trains a classifier of noised images, so that it can guide a diffusion model (ADM,
    section 4).

    diffusion: only its noise schedule and timesteps are used.
    """

    network_gives: ClassVar[Gives] = "logits"

    task: Literal["noisy_classifier"]
    diffusion: DiffusionConfig
    network: ClassifierNetwork

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.data.classes is None:
            raise ValueError("task=noisy_classifier needs labelled data: set data.classes to the number of classes")
        self.network.refuse_other_data(self.data)
        for part, callback in self.callbacks.active:
            if callback.draws:
                raise ValueError(f"callbacks.{part.name}: a classifier draws no images: choose callbacks=classifier")
        return self

    def model(self) -> NoisyClassifierModelConfig:
        return self.stored_as(NoisyClassifierModelConfig)
