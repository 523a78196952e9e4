"""The configuration of `difflab evaluate run=...` of an autoencoder: how it reconstructs real images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from difflab.config.metrics import MetricsConfig
from difflab.config.work import MeasuringImagesConfig


class EvaluateReconstructionsConfig(MeasuringImagesConfig):
    """`difflab evaluate` of an autoencoder.

    out: where the records go; null = <run>/evaluations/reconstructions-<split>-n<n>-<hash of the rest>. They are also
        added to the run's evaluations.jsonl.
    """

    posterior: Literal["mode", "sample"] = "mode"
    """The latent of an image: the mode of its distribution, or a sample, drawn with the seed."""
    tiled: bool = False
    """Whether images are encoded and decoded in tiles, which needs less memory for large ones, and more time."""
    tile: Annotated[int, Field(ge=1)] = 256
    """With tiled: pixels per side of a tile, a multiple of the factor by which latents are smaller."""
    rounding: Literal["truncate", "nearest", "edm"] = "truncate"
    """The conversion of reconstructions to uint8, as in an official code: truncate, nearest or edm."""
    pictures: Annotated[int, Field(ge=0, le=1024)] = 16
    """The number of images that reconstructions.png shows, each above its reconstruction; 0 = none."""
    metrics: MetricsConfig
    """The metrics, each under a name of your own; null disables one."""
    compile: Literal[False] = False
    """Always false: torch.compile is for networks that run many times per image, and an autoencoder runs once."""

    @property
    def without_effect(self) -> frozenset[str]:
        idle = {"seed": self.posterior == "mode", "tile": not self.tiled}
        return frozenset(key for key, is_idle in idle.items() if is_idle)

    @field_validator("compile", mode="before")
    @classmethod
    def _nothing_is_compiled(cls, value: Any) -> Any:
        if value is not False:
            raise ValueError(
                "torch.compile is for networks that run many times per image, and an autoencoder runs once: leave "
                "compile out"
            )
        return value
