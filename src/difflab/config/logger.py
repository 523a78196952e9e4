"""The `logger` group: what the configuration of everything that keeps metrics says of itself."""

from __future__ import annotations

from typing import ClassVar

from difflab.config.axes import LOGGERS
from difflab.config.base import Config
from difflab.config.registry import load
from difflab.config.slots import PartsConfig


class LoggerBase(Config):
    """What the configuration of every logger says.

    keeps_rows: whether all rows stand in metrics.csv of the run directory, from which training knows what was logged.
    refusal: `module:name` of what is given the configuration before anything is written, and raises UserError where it
        could not log as asked.
    """

    keeps_rows: ClassVar[bool] = False
    refusal: ClassVar[str | None] = None


class LoggerConfig(PartsConfig):
    """Each logger, or null (false, where it has no options) for none."""

    axis: ClassVar = LOGGERS

    @property
    def keeps_rows(self) -> bool:
        """Whether all rows stand in metrics.csv of the run directory."""
        return any(options.keeps_rows for _, options in self.active)

    def refuse_unusable(self) -> None:
        """Raises UserError where one of them could not log as asked, before anything is written."""
        for _, options in self.active:
            if options.refusal is not None:
                load(options.refusal)(options)
