"""The configuration of where metrics go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difflab.config.base import Config

Mode = Literal["online", "offline", "shared", "disabled"]


class WandbConfig(Config):
    """A Weights & Biases run.

    mode: null = as WANDB_DISABLED and WANDB_MODE say; without them online inside `wandb agent`, and offline elsewhere,
        which needs no account and no network: `wandb sync` uploads it later.
    project, entity, name, group, tags, notes: null or empty = W&B's own variable (WANDB_PROJECT, WANDB_ENTITY,
        WANDB_NAME, WANDB_RUN_GROUP, WANDB_TAGS, WANDB_NOTES) where it is set; else the project difflab, the account's
        own entity, and a name that says what the run is.
    finish_timeout: seconds that the end of a run waits for its data to be uploaded or written.
    """

    mode: Mode | None = None
    project: Annotated[str, Field(min_length=1)] | None = None
    entity: str | None = None
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    group: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default_factory=list)
    notes: str | None = None
    system_stats: bool = False
    save_code: bool = False
    artifact: bool = True
    finish_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0


class LoggerConfig(Config):
    """metrics.csv in the run directory, and W&B or null."""

    csv: bool = True
    wandb: WandbConfig | None = WandbConfig()
