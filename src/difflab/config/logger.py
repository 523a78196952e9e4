"""The `logger` group: what the configuration of every logger declares."""

from __future__ import annotations

from typing import ClassVar

from difflab.config.axes import LOGGERS
from difflab.config.base import Config
from difflab.config.registry import load
from difflab.config.slots import PartsConfig


class LoggerBase(Config):
    """Base of the configurations of loggers.

    keeps_rows: whether it keeps all rows in metrics.csv of the run directory, where training reads what was logged.
    refusal: `module:name` of a function that is called with the configuration before anything is written, and raises
        UserError if the logger could not be used.
    """

    keeps_rows: ClassVar[bool] = False
    refusal: ClassVar[str | None] = None


class LoggerConfig(PartsConfig):
    """Each logger, or null (false, if it has no options) for none."""

    axis: ClassVar = LOGGERS

    @property
    def keeps_rows(self) -> bool:
        """Whether all rows are kept in metrics.csv of the run directory."""
        return any(options.keeps_rows for _, options in self.active)

    def refuse_unusable(self) -> None:
        """Raises UserError if one of them could not be used, before anything is written."""
        for _, options in self.active:
            if options.refusal is not None:
                load(options.refusal)(options)
