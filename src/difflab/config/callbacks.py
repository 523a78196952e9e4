"""The `callbacks` group: what the configuration of every callback states."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from difflab.config.axes import CALLBACKS
from difflab.config.base import Config
from difflab.config.slots import PartsConfig

if TYPE_CHECKING:
    from difflab.config.train import TrainConfig


class Place(IntEnum):
    """The order of callbacks within a step; callbacks of one place run in the order they are registered."""

    COUNTS = 0
    """Counts the step, or decides that it does not count."""
    AVERAGES = 1
    """Averages the weights of the steps that count."""
    LOGS = 2
    """Reports the progress of training."""
    SAVES = 3
    """Saves what training resumes from, including the averages of this step."""
    MAY_FAIL = 4
    """Does work that may fail or be interrupted, and can be redone from what was saved before."""
    ENDS = 5
    """Ends the run once the step is complete."""


class CallbackBase(Config):
    """Base of the configurations of callbacks.

    place: when it runs relative to the others.
    draws: whether it draws samples, which not every task supports.
    averages: whether it averages the weights, which the run then samples with and stores.
    """

    place: ClassVar[Place] = Place.MAY_FAIL
    draws: ClassVar[bool] = False
    averages: ClassVar[bool] = False

    @property
    def measures(self) -> int | None:
        """The number of samples on which it computes metrics, None if it computes none."""
        return None

    def refuse_beside(self, others: Mapping[str, Any]) -> None:
        """Raises ValueError if it cannot be combined with `others`: all configured callbacks, by name."""

    def refuse_training(self, config: TrainConfig) -> None:
        """Raises ValueError if it has nothing to do in this training run."""


class CallbacksConfig(PartsConfig):
    """Each callback, or null for none."""

    axis: ClassVar = CALLBACKS

    @property
    def averages(self) -> bool:
        """Whether the run keeps averaged weights."""
        return any(options.averages for _, options in self.active)

    @property
    def measured(self) -> list[int]:
        """The sample counts of the callbacks that compute metrics."""
        return [n for _, options in self.active if (n := options.measures) is not None]

    def refuse_drawing(self, why: str) -> None:
        """Raises ValueError for a callback that draws samples; `why` the model draws none, and what to choose."""
        for part, options in self.active:
            if options.draws:
                raise ValueError(f"callbacks.{part.name}: {why}")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        there = self.chosen_slots
        for _, options in self.active:
            options.refuse_beside(there)
        return self
