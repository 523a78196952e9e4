"""The `guidance` group: what every guidance says of itself, and how predictions are kept in range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from difflab.config.axes import GUIDANCE
from difflab.config.base import Config

Weights = Literal["auto", "ema", "raw"]
"""Which weights of a run: the averaged ones where it keeps them (auto), the averaged, or the raw ones."""


def _is_ordered(interval: list[float]) -> list[float]:
    if not 0 <= interval[0] < interval[1]:
        raise ValueError(f"interval={interval} must be [low, high] with 0 <= low < high, as in [0.3, 1.6]")
    return interval


Interval = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_is_ordered)]


@dataclass(frozen=True)
class GuideRun:
    """A further trained model that a guidance asks.

    run:     a run directory, an exported folder or a checkpoint.
    builder: `module:name` of the `difflab.pipelines.guides.Guide` that is made of it.
    options: what the guide has to know besides.
    """

    run: str
    weights: Weights
    builder: str
    options: Config | None = None


class GuidanceOptions(Config):
    """What one guidance is told, alone or beside others in `composed`.

    A subclass says what of a drawing it asks; whoever draws never asks which guidance it is.
    """

    @property
    def guides(self) -> Mapping[str, GuideRun]:
        """The further models that it asks, by the names under which its builder gets what they say."""
        return {}

    @property
    def needs_null(self) -> bool:
        """Whether it leads away from what the model predicts without its condition."""
        return False

    @property
    def calls(self) -> int:
        """How many rows go through the network for each sample in a step, at least."""
        return 1

    def recorded(self) -> dict[str, Any]:
        """Its options as they change pictures: what can be said in two ways, in both."""
        return self.plain()


class GuidanceBase(GuidanceOptions):
    """What every kind has: how x0 is kept in range, and how the network is run.

    acts: whether it changes any prediction.
    part: its options beside others, as the key of its kind in `composed`; None where it stands alone. They are built
        as the kind is.
    """

    acts: ClassVar[bool] = True
    part: ClassVar[type[GuidanceOptions] | None] = None

    kind: str
    threshold: Literal["none", "static", "dynamic"] = "static"
    """How the predicted x0 is kept in range: none (latent space), static (DDPM) or dynamic (Imagen, section 2.3)."""
    static_limit: float = Field(default=1.0, gt=0)
    """Of static: x0 is clipped to [-limit, limit]."""
    dynamic_percentile: float = Field(default=0.995, gt=0, le=1)
    """Of dynamic (Imagen's appendix; diffusers: dynamic_thresholding_ratio)."""
    dynamic_maximum: float | None = Field(default=None, ge=1)
    """Of dynamic: at most so much (diffusers: sample_max_value); null has no bound."""
    rederive_eps: bool = True
    """eps follows the clipped x0 (ADM, GLIDE); false keeps the network's (the default of diffusers)."""
    one_batch: bool = True
    """All predictions of a step in one run of the network; false = one after the other, in less memory."""

    def recorded(self) -> dict[str, Any]:
        return {key: value for key, value in super().recorded().items() if key != "one_batch"}


GuidanceConfig = Annotated[GuidanceBase, GUIDANCE]
"""One guidance, told apart by `kind`."""
