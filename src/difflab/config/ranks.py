"""How long the processes of one command wait for each other."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from difflab.config.base import Config


class RanksConfig(Config):
    """What happens if one of several processes stops responding (stopped, swapped out, its machine gone)."""

    warning_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds after which a message names the process that the others are waiting for."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which all processes are ended, with status 1; null = never."""
