"""The `callbacks` group: what the configuration of everything that watches training says of itself."""

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
    """When a callback has its turn in a step; those of one place, as they are registered."""

    COUNTS = 0
    """It counts the step, or decides that it does not count."""
    AVERAGES = 1
    """It follows the weights of the steps that count."""
    LOGS = 2
    """It says how training goes."""
    SAVES = 3
    """It writes what training goes on from, with the averages of this step in it."""
    MAY_FAIL = 4
    """It does what may fail or be cut off, which is made up from what was saved before."""
    ENDS = 5
    """It ends the run once everything of the step is done."""


class CallbackBase(Config):
    """What the configuration of every callback says.

    place: when it has its turn among the others.
    draws: whether it draws samples, which not every task can.
    averages: whether it averages the weights, and so is what a run is drawn with and leaves.
    """

    place: ClassVar[Place] = Place.MAY_FAIL
    draws: ClassVar[bool] = False
    averages: ClassVar[bool] = False

    @property
    def measures(self) -> int | None:
        """How many samples it finds the metrics of, None where it finds none."""
        return None

    def refuse_beside(self, others: Mapping[str, Any]) -> None:
        """Raises ValueError where it cannot be among `others`: all callbacks that there are, by name."""

    def refuse_training(self, config: TrainConfig) -> None:
        """Raises ValueError where it has nothing to do in this training."""


class CallbacksConfig(PartsConfig):
    """Each callback, or null for none."""

    axis: ClassVar = CALLBACKS

    @property
    def averages(self) -> bool:
        """Whether the run keeps averaged weights."""
        return any(options.averages for _, options in self.active)

    @property
    def measured(self) -> list[int]:
        """Of how many samples metrics are found, once for each callback that finds some."""
        return [n for _, options in self.active if (n := options.measures) is not None]

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        there = self.chosen_slots
        for _, options in self.active:
            options.refuse_beside(there)
        return self
