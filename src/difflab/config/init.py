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
    """The source of the weights: a run directory, an exported folder, a checkpoint or a weights file."""
    which: Literal["ema", "raw"] = "ema"
    """The averaged (ema) or the raw weights, if there are both."""
    extend_input: Literal["zero"] | None = None
    """How to initialize input channels that the source lacks. zero = they follow the source's channels, with zero
    weights, so that the first predictions are the source's (fine-tuning for inpainting, as in GLIDE, Nichol et al.
    2021); null = the channels must agree."""
    partial: bool = False
    """Load the weights that fit, and list which were loaded and which were not; false = all must fit."""
    freeze: list[Pattern] = Field(default_factory=list)
    """Patterns of the names of parameters that are not trained, such as network.encoder.*."""
    train: list[Pattern] = Field(default_factory=list)
    """Patterns of the names of parameters that are trained despite `freeze`; without it, they alone are trained."""


InitConfig = Annotated[ScratchConfig | WeightsInitConfig, Field(discriminator="kind")]
