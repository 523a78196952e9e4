"""What families of samplers share: a grid of noise levels, the noise that they add, the rows of a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.sampler import SamplerBase

Snap = Literal["none", "time", "level"]

BETWEEN_ENDS = ("spacing=karras", "spacing=exponential", "spacing=polyexponential")
NO_ENDS = {"sigma_min": None, "sigma_max": None}


def check_ends(low: float | None, high: float | None, chosen: str, between: Sequence[str]) -> None:
    """Raises ValueError if sigma_min is not below sigma_max, or if the spacing does not use them.

    chosen: the spacing, or the discretization. between: the spacings that use them.
    """
    if low is not None and high is not None and low >= high:
        raise ValueError(f"sigma_min={low} must be below sigma_max={high}")
    given = [f"{key}={end}" for key, end in (("sigma_min", low), ("sigma_max", high)) if end is not None]
    if given and chosen not in between:
        raise ValueError(
            f"{' and '.join(given)}: {chosen} has its own ends: leave them out (null), or set {between[0]}"
        )


class LevelsConfig(SamplerBase):
    """Base of the samplers that step between noise levels; see `difflab.diffusion.levels.grid.Grid`."""

    steps: int | str | list[int] | None = 20
    """The number of steps; for a spacing by timesteps also the notation of `sections`, "10,10,20" or "ddim50"."""
    spacing: Literal[
        "karras",
        "exponential",
        "polyexponential",
        "vp",
        "sections",
        "ddim",
        "leading",
        "linspace",
        "trailing",
        "fractional",
        "leading_inner",
        "linspace_inner",
        "ldm_uniform",
        "ldm_quad",
        "listed",
    ] = "karras"
    """Which levels are visited. By sigma / alpha: karras (EDM), exponential (even log-SNR), polyexponential, vp,
    listed. By training timestep: sections, ddim, leading, linspace, trailing, ldm_uniform, ldm_quad; fractional, which
    is linspace without rounding; leading_inner and linspace_inner, as in diffusers' DPM-Solver."""
    steps_offset: int = Field(default=0, ge=0)
    """Added to timesteps (Stable Diffusion: 1 with spacing=leading)."""
    rho: float = Field(default=7.0, gt=0)
    """rho of karras and polyexponential (EDM eq. 5)."""
    sigma_min: float | None = Field(default=None, gt=0)
    """Lowest sigma / alpha; null = that of the process, at least 0.002 (EDM table 1)."""
    sigma_max: float | None = Field(default=None, gt=0)
    """Highest sigma / alpha; null = that of the process, at most 80 (EDM table 1)."""
    final: Literal["clean", "lowest"] = "clean"
    """Where the last step ends: clean, or lowest (diffusers' final_sigmas_type=sigma_min)."""
    snap: Snap = "none"
    """Rounding of levels between rows of a table: none; to the nearest row time (diffusers) or level (EDM's iDDPM)."""
    interpolate: Literal["log", "linear"] = "log"
    """Interpolation at fractional timesteps: log (k-diffusion) or linear (diffusers)."""

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        if isinstance(self.steps, int) and self.steps < 1:
            raise ValueError(f"steps={self.steps} must be 1 or more")
        if not isinstance(self.steps, int) and self.spacing != "sections":
            raise ValueError(f"spacing={self.spacing} takes a number in steps; {self.steps!r} needs spacing=sections")
        check_ends(self.sigma_min, self.sigma_max, f"spacing={self.spacing}", BETWEEN_ENDS)
        return self

    @property
    def lists_its_end(self) -> bool:
        return self.final == "lowest"

    def _listing(self, sigmas: Sequence[float]) -> dict[str, Any]:
        return {**super()._listing(sigmas), **NO_ENDS}


class ChurnKeys(Config):
    """EDM's noise added at the start of a step, if s_tmin <= sigma / alpha <= s_tmax (null: no upper end)."""

    s_churn: float = Field(default=0.0, ge=0)
    """S_churn of EDM algorithm 2; 0 is deterministic (ImageNet-64: 40; capped at 0.41 * steps)."""
    s_tmin: float = Field(default=0.0, ge=0)
    """S_min."""
    s_tmax: float | None = Field(default=None, gt=0)
    """S_max; null for no upper end."""
    s_noise: float = Field(default=1.0, gt=0)
    """S_noise, the standard deviation of the added noise."""

    @model_validator(mode="after")
    def _check_churn(self) -> Self:
        if self.s_tmax is not None and self.s_tmin >= self.s_tmax:
            raise ValueError(f"s_tmin={self.s_tmin} must be below s_tmax={self.s_tmax}")
        return self


class ChurnConfig(LevelsConfig, ChurnKeys):
    """Levels, and EDM's noise added at the start of a step."""


class AncestralNoiseConfig(LevelsConfig):
    """New noise in every step."""

    eta: float = Field(default=1.0, ge=0, le=1)
    """0 = no noise, the ODE; 1 = as much as DDPM."""
    s_noise: float = Field(default=1.0, gt=0)
    """s_noise of k-diffusion, the standard deviation of what is added."""


class MultistepSDEConfig(LevelsConfig):
    """Noise of the SDE."""

    eta: float = Field(default=1.0, ge=0)
    """0 = the ODE, 1 = the reverse SDE; larger values are allowed."""
    s_noise: float = Field(default=1.0, gt=0)
    """s_noise of k-diffusion, the standard deviation of what is added."""


class ExponentialConfig(LevelsConfig):
    """Multistep, one network call per step; see `difflab.diffusion.samplers.exponential.ExponentialSampler`."""

    order: int = Field(default=2, ge=1, le=3)
    """The number of predictions combined; 1 is DDIM. The paper uses 2 for guided sampling, 3 without guidance."""
    prediction: Literal["x0", "eps"] = "x0"
    """What is extrapolated: x0, or eps with final=lowest."""
    lower_order_final: bool = True
    """Lower the order of the last steps if there are fewer than 15 (the authors' code, diffusers)."""

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        if self.prediction == "eps" and self.final == "clean":
            raise ValueError("prediction=eps cannot step to the clean end: set final=lowest, or prediction=x0")
        return self


class StridedConfig(SamplerBase):
    """Base of the samplers that step on the rows of a table."""

    steps: int | str | list[int] | None = None
    """The number of steps (null = every training step), or for spacing=sections "10,10,20", "ddim50" or a list."""
    spacing: Literal["sections", "ddim", "leading", "linspace", "trailing", "ldm_uniform", "ldm_quad", "listed"] = (
        "sections"
    )
    """Which training timesteps are kept; listed = the levels in `sigmas`."""
    steps_offset: int = Field(default=0, ge=0)
    """Added to every kept step (Stable Diffusion: 1 with spacing=leading)."""

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        steps = self.steps
        if steps is None:
            return self
        if isinstance(steps, int):
            if steps < 1:
                raise ValueError(f"steps={steps} must be 1 or more (null takes every training step)")
            return self
        if self.spacing != "sections":
            raise ValueError(f"spacing={self.spacing} takes a number in steps; {steps!r} needs spacing=sections")
        if isinstance(steps, str) and not re.fullmatch(r"ddim\d+|\d+(,\d+)*", steps):
            raise ValueError(f'steps={steps!r} is not understood; write a number, "10,10,20" or "ddim50"')
        if isinstance(steps, list) and (not steps or min(steps) < 1):
            raise ValueError(f"steps={steps} must list how many steps each section takes, 1 or more")
        return self


class StridingConfig(StridedConfig):
    """Base of the samplers that may step in even strides."""

    final_level: Literal["clean", "first"] = "clean"
    """Where the last step ends: clean, or first (diffusers' set_alpha_to_one=False, latent diffusion)."""
    stride: Literal["listed", "constant"] = "listed"
    """Where a step ends: at the next kept step (listed), or T // steps down regardless (constant; diffusers)."""

    @model_validator(mode="after")
    def _check_stride(self) -> Self:
        if self.spacing == "listed" and self.stride == "constant":
            raise ValueError("stride=constant leaves the levels of spacing=listed: set stride=listed")
        return self

    def _listing(self, sigmas: Sequence[float]) -> dict[str, Any]:
        return {**super()._listing(sigmas), "stride": "listed"}
