"""The configurations of the loggers, in the order in which they receive what is logged."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from difflab.config.axes import LOGGERS
from difflab.config.logger import LoggerBase

Mode = Literal["online", "offline", "shared", "disabled"]


@LOGGERS.register("csv", "difflab.tracking.csv:opened", default=True, switch=True)
class CSVConfig(LoggerBase):
    """metrics.csv in the run directory."""

    keeps_rows: ClassVar[bool] = True


@LOGGERS.register("wandb", "difflab.tracking.wandb:opened", default=True)
class WandbConfig(LoggerBase):
    """A Weights & Biases run.

    project, entity, name, group, tags, notes: null or empty = W&B's own variable (WANDB_PROJECT, WANDB_ENTITY,
        WANDB_NAME, WANDB_RUN_GROUP, WANDB_TAGS, WANDB_NOTES) if it is set; else the project difflab, the account's
        own entity, and a name that describes the run.
    """

    refusal: ClassVar[str | None] = "difflab.tracking.wandb_environment:refuse_unusable"

    mode: Mode | None = None
    """online, offline, shared or disabled; null = as WANDB_DISABLED and WANDB_MODE say; without them online inside
    `wandb agent`, and otherwise offline, which needs no account and no network: `wandb sync` uploads it later."""
    project: Annotated[str, Field(min_length=1)] | None = None
    """null = WANDB_PROJECT, else difflab."""
    entity: str | None = None
    """null = WANDB_ENTITY, else the account's own."""
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """null = WANDB_NAME, else the run's name."""
    group: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """null = WANDB_RUN_GROUP; evaluations are grouped by their run."""
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default_factory=list)
    """[] = WANDB_TAGS."""
    notes: str | None = None
    """null = WANDB_NOTES."""
    system_stats: bool = False
    """Also log CPU, memory and GPU usage."""
    save_code: bool = False
    """Also upload the code."""
    artifact: bool = True
    """Upload the EMA weights as an artifact at the end."""
    finish_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    """Seconds that the end of a run waits for its data to be uploaded or written."""
