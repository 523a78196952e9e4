"""What the configurations of all classifiers share: a network that outputs logits, and labelled data."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, model_validator

from difflab.config.model import Measurement, NetworkModelConfig
from difflab.config.network import Gives, NetworkConfig, of_other_tasks
from difflab.config.train import TrainConfig

ClassifierNetwork = Annotated[NetworkConfig, BeforeValidator(of_other_tasks)]


class ClassifierModelConfig(NetworkModelConfig):
    """A network that classifies images."""

    measures: ClassVar[tuple[Measurement, ...]] = ("accuracy",)

    network: ClassifierNetwork

    @property
    def logits(self) -> int | None:
        return self.network.logits


class ClassifierTrainConfig(TrainConfig):
    """Trains a classifier of images."""

    network_gives: ClassVar[Gives] = "logits"

    network: ClassifierNetwork

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.data.classes is None:
            raise ValueError(f"task={self.task} needs labelled data: set data.classes to the number of classes")
        self.network.refuse_other_data(self.data)
        self.callbacks.refuse_drawing("a classifier draws no images: choose callbacks=classifier")
        return self
