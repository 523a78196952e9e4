"""The `guidance` group: how predictions are steered and kept in range."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from difflab.config.base import Config


class GuidanceConfig(Config):
    """eps = eps_uncond + scale (eps_cond - eps_uncond); paper_w is the weight of the CFG paper, scale - 1."""

    kind: Literal["none"]
    scale: float | None = None
    paper_w: float | None = None
    threshold: Literal["none", "static", "dynamic"] = "static"
    static_limit: float = Field(default=1.0, gt=0)
    dynamic_percentile: float = Field(default=0.995, gt=0, le=1)
    dynamic_maximum: float | None = Field(default=None, ge=1)
    rederive_eps: bool = True

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        if self.scale is not None and self.paper_w is not None:
            raise ValueError("scale and paper_w say the same thing (scale = 1 + paper_w): give one of them")
        if self.kind == "none" and self.effective_scale != 1.0:
            raise ValueError(
                f"kind=none cannot apply a scale of {self.effective_scale:g}: "
                "remove scale and paper_w, or choose a guidance"
            )
        return self

    @property
    def effective_scale(self) -> float:
        """The scale in the library's convention; 1 is conditional only."""
        if self.scale is not None:
            return self.scale
        return 1.0 if self.paper_w is None else 1.0 + self.paper_w
