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
    """Start from a run directory, an exported folder, a checkpoint or a weights file.

    source (`from`): where they lie. which: the averaged or the raw weights, where the source has both.
    extend_input: zero = the network takes more input channels than the source's; those that come after the source's
        begin with weights of zero, so that the first predictions are the source's whatever they hold (fine-tuning to
        inpaint, as in GLIDE, Nichol et al. 2021). null = the channels have to agree.
    partial: take what fits and list what was taken and what was not; otherwise all has to fit.
    freeze, train: patterns of parameter names, as network.encoder.*; `train` wins over `freeze`, and alone it freezes
        everything else.
    """

    kind: Literal["weights"]
    source: Annotated[str, Field(alias="from")]
    which: Literal["ema", "raw"] = "ema"
    extend_input: Literal["zero"] | None = None
    partial: bool = False
    freeze: list[Pattern] = Field(default_factory=list)
    train: list[Pattern] = Field(default_factory=list)


InitConfig = Annotated[ScratchConfig | WeightsInitConfig, Field(discriminator="kind")]
