"""The `guidance` group: what every guidance declares, and how predictions are kept in range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from difflab.config.axes import GUIDANCE
from difflab.config.base import Config

Weights = Literal["auto", "ema", "raw"]
"""Which weights of a run: auto (averaged if it keeps averages), ema (averaged) or raw."""


def _is_ordered(interval: list[float]) -> list[float]:
    if not 0 <= interval[0] < interval[1]:
        raise ValueError(f"interval={interval} must be [low, high] with 0 <= low < high, as in [0.3, 1.6]")
    return interval


Interval = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_is_ordered)]


@dataclass(frozen=True)
class GuideRun:
    """An additional trained model that a guidance evaluates.

    run:     a run directory, an exported folder or a checkpoint.
    builder: `module:name` of its `difflab.pipelines.guides.Guide`.
    options: further arguments of the guide.
    """

    run: str
    weights: Weights
    builder: str
    options: Config | None = None


class GuidanceOptions(Config):
    """The options of one guidance, alone or combined with others in `composed`.

    A subclass declares what it needs of sampling, so that pipelines never depend on its type.
    """

    @property
    def guides(self) -> Mapping[str, GuideRun]:
        """The additional models that it evaluates, by the names under which its builder receives them."""
        return {}

    @property
    def needs_null(self) -> bool:
        """Whether it extrapolates away from the unconditional prediction."""
        return False

    @property
    def calls(self) -> int:
        """The least number of rows that the network processes per sample and step."""
        return 1

    def recorded(self) -> dict[str, Any]:
        """The options that change samples; equivalent options are recorded in both forms."""
        return self.plain()


class GuidanceBase(GuidanceOptions):
    """Base of the guidances: how x0 is kept in range, and how the network is run.

    acts: whether it changes any prediction.
    part: its options within `composed`, below the key of its kind; None if it cannot be combined. The builder is the
        same.
    """

    acts: ClassVar[bool] = True
    part: ClassVar[type[GuidanceOptions] | None] = None

    kind: str
    threshold: Literal["auto", "none", "static", "dynamic"] = "auto"
    """How the predicted x0 is kept in range: none, static (DDPM) or dynamic (Imagen, section 2.3); auto = static for
    images, none for latents, which have no range."""
    static_limit: float = Field(default=1.0, gt=0)
    """For static: x0 is clipped to [-limit, limit]."""
    dynamic_percentile: float = Field(default=0.995, gt=0, le=1)
    """For dynamic: the percentile (Imagen's appendix; diffusers: dynamic_thresholding_ratio)."""
    dynamic_maximum: float | None = Field(default=None, ge=1)
    """For dynamic: the largest threshold (diffusers: sample_max_value); null = unbounded."""
    rederive_eps: bool = True
    """Recompute eps from the clipped x0 (ADM, GLIDE); false keeps the network's eps (the default of diffusers)."""
    one_batch: bool = True
    """Make all predictions of a step in one network call; false = one after the other, in less memory."""

    def recorded(self) -> dict[str, Any]:
        return {key: value for key, value in super().recorded().items() if key != "one_batch"}

    def threshold_of(self, *, latents: bool) -> Literal["none", "static", "dynamic"]:
        """How x0 is kept in range, where images or latents are diffused.

        Raises ValueError for a threshold of latents.
        """
        if self.threshold == "auto":
            return "none" if latents else "static"
        if latents and self.threshold != "none":
            raise ValueError(
                f"guidance.threshold={self.threshold} keeps images in [-1, 1], but this model diffuses latents, which "
                "have no such range: set guidance.threshold=none, or leave it out"
            )
        return self.threshold


GuidanceConfig = Annotated[GuidanceBase, GUIDANCE]
"""One guidance, selected by `kind`."""
