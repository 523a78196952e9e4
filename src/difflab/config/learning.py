"""What a configuration may learn from when a run starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingTexts:
    """The texts of the training data; nothing is read before one of the two is called.

    captions: returns those of images, phrases: those of boxes. Both raise UserError if there are none.
    """

    captions: Callable[[], Iterable[str]]
    phrases: Callable[[], Iterable[str]]
