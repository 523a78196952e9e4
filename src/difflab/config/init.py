"""Where the weights of a new run come from, and which of them it trains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difflab.config.base import Config

Pattern = Annotated[str, Field(min_length=1)]


class ScratchConfig(Config):
    """Random initial weights, all of them trained."""

    kind: Literal["scratch"]


class WeightsInitConfig(Config):
    """Start from a run directory, an exported folder, a checkpoint or a weights file."""

    kind: Literal["weights"]
    source: Annotated[str, Field(alias="from")]
    """Where the weights lie: a run directory, an exported folder, a checkpoint or a weights file."""
    which: Literal["ema", "raw"] = "ema"
    """The averaged (ema) or the raw weights, where there are both."""
    extend_input: Literal["zero"] | None = None
    """What becomes of input channels that the network has and the source has not. zero = they come after the source's
    and begin with weights of zero, so that the first predictions are the source's whatever they hold (fine-tuning to
    inpaint, as in GLIDE, Nichol et al. 2021); null = the channels have to agree."""
    partial: bool = False
    """Take what fits, and list what was taken and what was not; otherwise all has to fit."""
    freeze: list[Pattern] = Field(default_factory=list)
    """Patterns of names of parameters that are not trained, as network.encoder.*."""
    train: list[Pattern] = Field(default_factory=list)
    """Patterns of names of parameters that are trained whatever `freeze` says; alone it freezes everything else."""


InitConfig = Annotated[ScratchConfig | WeightsInitConfig, Field(discriminator="kind")]
