"""Where the weights of a new run come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difflab.config.base import Config


class ScratchConfig(Config):
    """Random initial weights."""

    kind: Literal["scratch"]


class WeightsInitConfig(Config):
    """Start from a run directory, an exported folder or a weights file of the same architecture.

    which: the averaged or the raw weights, where the source has both.
    """

    kind: Literal["weights"]
    path: str
    which: Literal["ema", "raw"] = "ema"


InitConfig = Annotated[ScratchConfig | WeightsInitConfig, Field(discriminator="kind")]
