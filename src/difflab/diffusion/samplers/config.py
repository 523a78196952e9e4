"""The samplers: on the rows of a table, and between noise levels with their grid, the noise they add, their order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from difflab.config.axes import SAMPLERS
from difflab.config.base import Config
from difflab.config.sampler import SamplerBase

Snap = Literal["none", "time", "level"]

BETWEEN_ENDS = ("spacing=karras", "spacing=exponential", "spacing=polyexponential")
NO_ENDS = {"noise_min": None, "noise_max": None}


def check_ends(low: float | None, high: float | None, chosen: str, between: Sequence[str]) -> None:
    """Raise ValueError unless noise_min is below noise_max, where both are given, and the spacing asks for them.

    chosen: the spacing, or the discretization. between: those whose levels lie between these two.
    """
    if low is not None and high is not None and low >= high:
        raise ValueError(f"noise_min={low} must be below noise_max={high}")
    given = [f"{key}={end}" for key, end in (("noise_min", low), ("noise_max", high)) if end is not None]
    if given and chosen not in between:
        raise ValueError(
            f"{' and '.join(given)}: {chosen} has its own ends: leave them out (null), or take {between[0]}"
        )


class LevelsConfig(SamplerBase):
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
        "listed",
    ] = "karras"
    steps_offset: int = Field(default=0, ge=0)
    rho: float = Field(default=7.0, gt=0)
    noise_min: float | None = Field(default=None, gt=0)
    noise_max: float | None = Field(default=None, gt=0)
    final: Literal["clean", "lowest"] = "clean"
    snap: Snap = "none"
    interpolate: Literal["log", "linear"] = "log"

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        if isinstance(self.steps, int) and self.steps < 1:
            raise ValueError(f"steps={self.steps} must be 1 or more")
        if not isinstance(self.steps, int) and self.spacing != "sections":
            raise ValueError(f"spacing={self.spacing} takes a number in steps; {self.steps!r} needs spacing=sections")
        check_ends(self.noise_min, self.noise_max, f"spacing={self.spacing}", BETWEEN_ENDS)
        return self

    @property
    def lists_its_end(self) -> bool:
        return self.final == "lowest"

    def _listing(self, noises: Sequence[float]) -> dict[str, Any]:
        return {**super()._listing(noises), **NO_ENDS}


class _Churned(Config):
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


class ChurnConfig(LevelsConfig, _Churned):
    """Levels, and EDM's noise added at the start of a step."""


class AncestralNoiseConfig(LevelsConfig):
    """New noise in every step: eta from 0 (none, the ODE) to 1 (as much as DDPM), times noise_scale."""

    eta: float = Field(default=1.0, ge=0, le=1)
    noise_scale: float = Field(default=1.0, gt=0)


class MultistepSDEConfig(LevelsConfig):
    """Noise of the SDE: eta 0 is the ODE, 1 the reverse SDE, and more is possible."""

    eta: float = Field(default=1.0, ge=0)
    noise_scale: float = Field(default=1.0, gt=0)


@SAMPLERS.register("difflab.diffusion.samplers.euler:EulerSampler.from_config")
class EulerConfig(ChurnConfig):
    """Euler's method on the probability-flow ODE; DDIM where there is no churn."""

    kind: Literal["euler"]


@SAMPLERS.register("difflab.diffusion.samplers.euler:HeunSampler.from_config")
class HeunConfig(ChurnConfig):
    """EDM's second-order sampler: two network calls in every step but the last."""

    kind: Literal["heun"]


@SAMPLERS.register("difflab.diffusion.samplers.euler:EulerAncestralSampler.from_config")
class EulerAncestralConfig(AncestralNoiseConfig):
    """Euler's method with new noise in every step."""

    kind: Literal["euler_ancestral"]


@SAMPLERS.register("difflab.diffusion.samplers.dpm2:DPM2Sampler.from_config")
class DPM2Config(ChurnConfig):
    """DPM-Solver-2: two network calls in every step but the last."""

    kind: Literal["dpm_2"]


@SAMPLERS.register("difflab.diffusion.samplers.dpm2:DPM2AncestralSampler.from_config")
class DPM2AncestralConfig(AncestralNoiseConfig):
    """DPM-Solver-2 with new noise in every step."""

    kind: Literal["dpm_2_ancestral"]


@SAMPLERS.register("difflab.diffusion.samplers.lms:LMSSampler.from_config")
class LMSConfig(LevelsConfig):
    """Linear multistep: one network call a step, `order` slopes."""

    kind: Literal["lms"]
    order: int = Field(default=4, ge=1, le=4)


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPP2SAncestralSampler.from_config")
class DPMSolverPP2SAncestralConfig(AncestralNoiseConfig):
    """DPM-Solver++(2S) with new noise in every step."""

    kind: Literal["dpm_solver_pp_2s_ancestral"]


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPPSDESampler.from_config")
class DPMSolverPPSDEConfig(AncestralNoiseConfig):
    """DPM-Solver++ on the SDE with two network calls a step, the second at r of the way."""

    kind: Literal["dpm_solver_pp_sde"]
    r: float = Field(default=0.5, gt=0, lt=1)


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPP2MSDESampler.from_config")
class DPMSolverPP2MSDEConfig(MultistepSDEConfig):
    """DPM-Solver++(2M) on the SDE."""

    kind: Literal["dpm_solver_pp_2m_sde"]
    solver: Literal["midpoint", "heun"] = "midpoint"


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPP3MSDESampler.from_config")
class DPMSolverPP3MSDEConfig(MultistepSDEConfig):
    """DPM-Solver++(3M) on the SDE."""

    kind: Literal["dpm_solver_pp_3m_sde"]


@SAMPLERS.register("difflab.diffusion.samplers.dpm_fast:DPMFastSampler.from_config")
class DPMFastConfig(SamplerBase):
    """DPM-Solver-fast: `steps` network calls in all, in steps of third order; it ends at the lowest level.

    spacing: even in the log-SNR, or between the noises that are listed, one more than steps.
    """

    kind: Literal["dpm_fast"]
    steps: int = Field(default=20, ge=1)
    spacing: Literal["exponential", "listed"] = "exponential"
    noise_min: float | None = Field(default=None, gt=0)
    noise_max: float | None = Field(default=None, gt=0)
    snap: Snap = "none"
    eta: float = Field(default=0.0, ge=0, le=1)
    noise_scale: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        check_ends(self.noise_min, self.noise_max, f"spacing={self.spacing}", ("spacing=exponential",))
        return self

    @property
    def lists_its_end(self) -> bool:
        return True

    def _listing(self, noises: Sequence[float]) -> dict[str, Any]:
        return {"spacing": "listed", "noises": list(noises), **NO_ENDS}

    def check_steps(self, listed: int) -> None:
        """Raise ValueError where the network calls need another number of levels."""
        levels = -(-self.steps // 3) + 1 if self.steps % 3 else self.steps // 3 + 2
        if listed != levels:
            fewest = max(1, 3 * (listed - 2))
            fitting = "" if listed < 2 else f", or set steps={fewest} to {3 * (listed - 2) + 2}"
            raise ValueError(
                f"steps={self.steps} network calls go through {levels} levels, but noises lists {listed}: list {levels}"
                f"{fitting}"
            )


@SAMPLERS.register("difflab.diffusion.samplers.edm_ablation:EDMAblationSampler.from_config")
class EDMAblationConfig(SamplerBase, _Churned):
    """EDM's ablation: solver, time steps, time and scaling chosen one by one."""

    listed_by: ClassVar[str] = "discretization"

    kind: Literal["edm_ablation"]
    steps: int = Field(default=18, ge=1)
    solver: Literal["euler", "heun"] = "heun"
    alpha: float = Field(default=1.0, gt=0, le=1)
    discretization: Literal["vp", "ve", "iddpm", "edm", "listed"] = "edm"
    schedule: Literal["linear", "vp", "ve"] = "linear"
    scaling: Literal["none", "vp"] = "none"
    noise_min: float | None = Field(default=None, gt=0)
    noise_max: float | None = Field(default=None, gt=0)
    rho: float = Field(default=7.0, gt=0)
    epsilon_s: float = Field(default=1e-3, gt=0, lt=1)
    c_1: float = Field(default=0.001, gt=0, lt=1)
    c_2: float = Field(default=0.008, gt=0)
    m: int = Field(default=1000, ge=1)
    snap: Snap = "none"

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        every = tuple(f"discretization={one}" for one in ("edm", "ve", "vp", "iddpm"))
        check_ends(self.noise_min, self.noise_max, f"discretization={self.discretization}", every)
        return self

    def _listing(self, noises: Sequence[float]) -> dict[str, Any]:
        return {**super()._listing(noises), **NO_ENDS}


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


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPPSampler.from_config")
class DPMSolverPPConfig(ExponentialConfig):
    """DPM-Solver++, or DPM-Solver with prediction=eps."""

    kind: Literal["dpm_solver_pp"]
    variant: Literal["midpoint", "heun"] = "midpoint"
    second_derivative: Literal["half", "full"] = "half"


@SAMPLERS.register("difflab.diffusion.samplers.unipc:UniPCSampler.from_config")
class UniPCConfig(ExponentialConfig):
    """UniPC; disable_corrector lists steps, 0 the first."""

    kind: Literal["unipc"]
    variant: Literal["bh1", "bh2"] = "bh2"
    disable_corrector: list[NonNegativeInt] = Field(default_factory=list)


class _Strided(SamplerBase):
    """steps: null for all training steps, a number, or for spacing=sections also "10,10,20", "ddim50" or a list."""

    steps: int | str | list[int] | None = None
    spacing: Literal["sections", "ddim", "leading", "linspace", "trailing", "ldm_uniform", "ldm_quad", "listed"] = (
        "sections"
    )
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


@SAMPLERS.register("difflab.diffusion.samplers.ancestral:AncestralSampler.from_config")
class AncestralConfig(_Strided):
    """DDPM's own sampler."""

    kind: Literal["ancestral"]


class _Striding(_Strided):
    """stride: constant goes down by T // steps whatever was kept."""

    final_level: Literal["clean", "first"] = "clean"
    stride: Literal["listed", "constant"] = "listed"

    @model_validator(mode="after")
    def _check_stride(self) -> Self:
        if self.spacing == "listed" and self.stride == "constant":
            raise ValueError("stride=constant leaves the levels of spacing=listed: take stride=listed")
        return self

    def _listing(self, noises: Sequence[float]) -> dict[str, Any]:
        return {**super()._listing(noises), "stride": "listed"}


@SAMPLERS.register("difflab.diffusion.samplers.ddim:DDIMSampler.from_config")
class DDIMConfig(_Striding):
    """DDIM; eta 0 is deterministic, 1 as noisy as the posterior."""

    kind: Literal["ddim"]
    eta: float = Field(default=0.0, ge=0)


@SAMPLERS.register("difflab.diffusion.samplers.inversion:DDIMInversion.from_config")
class DDIMInversionConfig(_Strided):
    """From an image to its noise."""

    draws: ClassVar[bool] = False

    kind: Literal["ddim_inversion"]
    end: Literal["pure_noise", "last_row"] = "last_row"


@SAMPLERS.register("difflab.diffusion.samplers.plms:PLMSSampler.from_config")
class PLMSConfig(_Striding):
    """PLMS of latent diffusion, or PNDM with warm_up=runge_kutta; on the timesteps of a table."""

    kind: Literal["plms"]
    warm_up: Literal["improved_euler", "runge_kutta"] = "improved_euler"
