"""Loggers that count optimised steps, whatever step Lightning hands them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers.logger import Logger

if TYPE_CHECKING:
    from PIL.Image import Image

STEP = "train/step"
IMAGES = "train/images"

Again = Callable[[Mapping[str, str]], bool]


def never(row: Mapping[str, str]) -> bool:
    """The `again` of loggers whose rows are all final."""
    return False


class ClockedLogger(Logger):
    """A Lightning logger whose rows carry `train/step` and `train/images`.

    The Clock callback hands its `clock` to `follow`; without one `train/step` is the step that Lightning passes.
    """

    clock: Callable[[], dict[str, int]] | None = None

    def follow(self, clock: Callable[[], dict[str, int]]) -> None:
        """From now on rows carry the time that `clock` reads."""
        self.clock = clock

    def stamped(self, metrics: Mapping[str, Any], step: int | None) -> dict[str, Any]:
        """`metrics` with the time in front; a time that is already among them is kept."""
        if self.clock is not None:
            return {**self.clock(), **metrics}
        return {**({} if step is None else {STEP: int(step)}), **metrics}

    def resume_at(self, step: int, again: Again = never) -> None:
        """Training goes on from `step`: forget what was logged for later steps, where that is possible.

        again: tells of a row of `step` itself whether it will be logged once more; such rows are forgotten, too.
        """

    def log_image(self, key: str, image: Image) -> None:
        """Record a picture; loggers that keep none do nothing."""

    def log_table(self, key: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Record a table, whose cells may be pictures; loggers that keep none do nothing."""

    def log_artifact(self, path: Path, name: str, kind: str, metadata: dict[str, Any]) -> None:
        """Record a file of the run; loggers that keep none do nothing."""
