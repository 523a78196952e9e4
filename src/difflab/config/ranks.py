"""How long the processes of one command wait for each other."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from difflab.config.base import Config


class RanksConfig(Config):
    """What happens where one of several processes gives no sign of life (stopped, swapped out, its machine gone)."""

    warning_s: Annotated[float, Field(gt=0)] = 600.0
    """After so many seconds it is said which process the others wait for."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """After so many seconds all are ended, with status 1; null = never."""
