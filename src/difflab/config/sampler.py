"""The `sampler` group: which sampler, with how many steps, spaced how."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from difflab.config.base import Config


class _Strided(Config):
    """steps: null for all training steps, a number, or for spacing=sections also "10,10,20", "ddim50" or a list."""

    steps: int | str | list[int] | None = None
    spacing: Literal["sections", "ddim", "leading", "linspace", "trailing", "ldm_uniform", "ldm_quad"] = "sections"
    steps_offset: int = Field(default=0, ge=0)

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


class AncestralConfig(_Strided):
    """DDPM's own sampler."""

    kind: Literal["ancestral"]


class DDIMConfig(_Strided):
    """DDIM; eta 0 is deterministic, 1 as noisy as the posterior."""

    kind: Literal["ddim"]
    eta: float = Field(default=0.0, ge=0)
    final_level: Literal["clean", "first"] = "clean"
    stride: Literal["listed", "constant"] = "listed"


class DDIMInversionConfig(_Strided):
    """From an image to its noise."""

    kind: Literal["ddim_inversion"]
    end: Literal["pure_noise", "last_row"] = "last_row"


class LevelsConfig(Config):
    """What the samplers have in common that step between noise levels; see `difflab.diffusion.grid.Grid`.

    steps: a number; for a spacing by timesteps also what `sections` understands.
    """

    steps: int | str | list[int] | None = 20
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
    ] = "karras"
    steps_offset: int = Field(default=0, ge=0)
    rho: float = Field(default=7.0, gt=0)
    noise_min: float | None = Field(default=None, gt=0)
    noise_max: float | None = Field(default=None, gt=0)
    final: Literal["clean", "lowest"] = "clean"
    snap: Literal["none", "time", "level"] = "none"
    interpolate: Literal["log", "linear"] = "log"

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        if isinstance(self.steps, int) and self.steps < 1:
            raise ValueError(f"steps={self.steps} must be 1 or more")
        if not isinstance(self.steps, int) and self.spacing != "sections":
            raise ValueError(f"spacing={self.spacing} takes a number in steps; {self.steps!r} needs spacing=sections")
        if self.noise_min is not None and self.noise_max is not None and self.noise_min >= self.noise_max:
            raise ValueError(f"noise_min={self.noise_min} must be below noise_max={self.noise_max}")
        return self


class ChurnConfig(LevelsConfig):
    """EDM's noise added at the start of a step, where churn_min <= sigma / alpha <= churn_max (null: no upper end)."""

    churn: float = Field(default=0.0, ge=0)
    churn_min: float = Field(default=0.0, ge=0)
    churn_max: float | None = Field(default=None, gt=0)
    churn_noise: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check_churn(self) -> Self:
        if self.churn_max is not None and self.churn_min >= self.churn_max:
            raise ValueError(f"churn_min={self.churn_min} must be below churn_max={self.churn_max}")
        return self


class EulerConfig(ChurnConfig):
    """Euler's method on the probability-flow ODE; DDIM where there is no churn."""

    kind: Literal["euler"]


class HeunConfig(ChurnConfig):
    """EDM's second-order sampler: two network calls in every step but the last."""

    kind: Literal["heun"]


class ExponentialConfig(LevelsConfig):
    """Multistep, one network call a step; see `difflab.diffusion.samplers.exponential.ExponentialSampler`."""

    order: int = Field(default=2, ge=1, le=3)
    prediction: Literal["x0", "eps"] = "x0"
    lower_order_final: bool = True

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        if self.prediction == "eps" and self.final == "clean":
            raise ValueError("prediction=eps cannot step to the clean end: set final=lowest, or prediction=x0")
        return self


class DPMSolverPPConfig(ExponentialConfig):
    """DPM-Solver++, or DPM-Solver with prediction=eps."""

    kind: Literal["dpm_solver_pp"]
    variant: Literal["midpoint", "heun"] = "midpoint"
    second_derivative: Literal["half", "full"] = "half"


class UniPCConfig(ExponentialConfig):
    """UniPC; disable_corrector lists steps, 0 the first."""

    kind: Literal["unipc"]
    variant: Literal["bh1", "bh2"] = "bh2"
    disable_corrector: list[NonNegativeInt] = Field(default_factory=list)


class PLMSConfig(_Strided):
    """PLMS of latent diffusion, or PNDM with warm_up=runge_kutta; on the timesteps of a table."""

    kind: Literal["plms"]
    warm_up: Literal["improved_euler", "runge_kutta"] = "improved_euler"
    final_level: Literal["clean", "first"] = "clean"
    stride: Literal["listed", "constant"] = "listed"


SamplerConfig = Annotated[
    AncestralConfig
    | DDIMConfig
    | DDIMInversionConfig
    | EulerConfig
    | HeunConfig
    | DPMSolverPPConfig
    | UniPCConfig
    | PLMSConfig,
    Field(discriminator="kind"),
]
