"""Loggers that count optimized steps, whatever step Lightning passes."""

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
    """The default `again` of `resume_at`: no row will be logged again."""
    return False


class ClockedLogger(Logger):
    """A Lightning logger whose rows carry `train/step` and `train/images`.

    The Clock callback passes its `clock` to `follow`; without one `train/step` is the step that Lightning passes.
    """

    clock: Callable[[], dict[str, int]] | None = None

    def follow(self, clock: Callable[[], dict[str, int]]) -> None:
        """Sets the clock that rows carry from now on."""
        self.clock = clock

    def stamped(self, metrics: Mapping[str, Any], step: int | None) -> dict[str, Any]:
        """Returns `metrics` preceded by the time; a time that is already there is kept."""
        if self.clock is not None:
            return {**self.clock(), **metrics}
        return {**({} if step is None else {STEP: int(step)}), **metrics}

    def resume_at(self, step: int, again: Again = never) -> None:
        """Training resumes from `step`: discards what was logged for later steps, if possible.

        again: whether a row of `step` itself will be logged again; such rows are discarded, too.
        """

    def log_image(self, key: str, image: Image) -> None:
        """Records an image; loggers that keep none do nothing."""

    def log_table(self, key: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Records a table, whose cells may be images; loggers that keep none do nothing."""

    def log_artifact(self, path: Path, name: str, kind: str, metadata: dict[str, Any]) -> None:
        """Records a file of the run; loggers that keep none do nothing."""
