"""The classifier of clean images: the configurations of its runs and of the stored models."""

from __future__ import annotations

from typing import ClassVar, Literal

from difflab.config.classifier import ClassifierModelConfig, ClassifierTrainConfig
from difflab.config.task import TASKS


class CleanClassifierModelConfig(ClassifierModelConfig):
    """A network that classifies clean images."""

    title: ClassVar[str] = "a classifier of clean images"
    use: ClassVar[str | None] = "evaluate run=... metrics=classes classifier={run}"

    task: Literal["classifier"] = "classifier"


@TASKS.register(
    CleanClassifierModelConfig,
    build_model="difflab.tasks.classifier.build:build_model",
    build_module="difflab.tasks.classifier.build:build_module",
)
class CleanClassifierTrainConfig(ClassifierTrainConfig):
    """`task=classifier`: trains a classifier of clean images, which evaluates the samples of generative models
    (`metrics=classes`).
    """

    task: Literal["classifier"]

    def model(self) -> CleanClassifierModelConfig:
        return self.stored_as(CleanClassifierModelConfig)
