"""The configuration of where metrics go."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from difflab.config.base import Config


class WandbConfig(Config):
    """A Weights & Biases run. offline (default) needs no account and no network; `wandb sync` uploads it later."""

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = Field(default="difflab", min_length=1)
    entity: str | None = None
    group: str | None = None
    tags: list[str] = Field(default_factory=list)
    notes: str | None = None
    system_stats: bool = False
    save_code: bool = False
    artifact: bool = True


class LoggerConfig(Config):
    """metrics.csv in the run directory, and W&B or null."""

    csv: bool = True
    wandb: WandbConfig | None = WandbConfig()
