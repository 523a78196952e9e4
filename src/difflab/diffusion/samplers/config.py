"""The samplers: what each kind has besides what those of its family share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from difflab.config.axes import SAMPLERS
from difflab.config.sampler import SamplerBase
from difflab.config.sampler_families import (
    NO_ENDS,
    AncestralNoiseConfig,
    ChurnConfig,
    ChurnKeys,
    ExponentialConfig,
    LevelsConfig,
    MultistepSDEConfig,
    Snap,
    StridedConfig,
    StridingConfig,
    check_ends,
)


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
    """How many slopes are joined; 1 is Euler."""


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPP2SAncestralSampler.from_config")
class DPMSolverPP2SAncestralConfig(AncestralNoiseConfig):
    """DPM-Solver++(2S) with new noise in every step."""

    kind: Literal["dpm_solver_pp_2s_ancestral"]


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPPSDESampler.from_config")
class DPMSolverPPSDEConfig(AncestralNoiseConfig):
    """DPM-Solver++ on the SDE with two network calls a step, the second at r of the way."""

    kind: Literal["dpm_solver_pp_sde"]
    r: float = Field(default=0.5, gt=0, lt=1)
    """Where the second call is made, as part of the step in the log-SNR."""


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPP2MSDESampler.from_config")
class DPMSolverPP2MSDEConfig(MultistepSDEConfig):
    """DPM-Solver++(2M) on the SDE."""

    kind: Literal["dpm_solver_pp_2m_sde"]
    solver: Literal["midpoint", "heun"] = "midpoint"
    """How the last two x0 are weighed: midpoint (k-diffusion, diffusers) or heun."""


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPP3MSDESampler.from_config")
class DPMSolverPP3MSDEConfig(MultistepSDEConfig):
    """DPM-Solver++(3M) on the SDE."""

    kind: Literal["dpm_solver_pp_3m_sde"]


@SAMPLERS.register("difflab.diffusion.samplers.dpm_fast:DPMFastSampler.from_config")
class DPMFastConfig(SamplerBase):
    """DPM-Solver-fast: so many network calls in all, in steps of third order; it ends at the lowest level."""

    kind: Literal["dpm_fast"]
    steps: int = Field(default=20, ge=1)
    """Network calls in all; Lu et al. 2022 need 10 to 20."""
    spacing: Literal["exponential", "listed"] = "exponential"
    """Even in the log-SNR, or between the sigmas that are listed, one more than steps."""
    sigma_min: float | None = Field(default=None, gt=0)
    """Where it ends: sigma / alpha; null is that of the process, at least 0.002."""
    sigma_max: float | None = Field(default=None, gt=0)
    """Highest sigma / alpha; null is that of the process, at most 80."""
    snap: Snap = "none"
    """As in the other samplers between levels."""
    eta: float = Field(default=0.0, ge=0, le=1)
    """0 adds no noise, the ODE; 1 adds as much as DDPM."""
    s_noise: float = Field(default=1.0, gt=0)
    """s_noise of k-diffusion, the standard deviation of what is added."""

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        check_ends(self.sigma_min, self.sigma_max, f"spacing={self.spacing}", ("spacing=exponential",))
        return self

    @property
    def lists_its_end(self) -> bool:
        return True

    def _listing(self, sigmas: Sequence[float]) -> dict[str, Any]:
        return {"spacing": "listed", "sigmas": list(sigmas), **NO_ENDS}

    def check_steps(self, listed: int) -> None:
        """Raise ValueError where the network calls need another number of levels."""
        levels = -(-self.steps // 3) + 1 if self.steps % 3 else self.steps // 3 + 2
        if listed != levels:
            fewest = max(1, 3 * (listed - 2))
            fitting = "" if listed < 2 else f", or set steps={fewest} to {3 * (listed - 2) + 2}"
            raise ValueError(
                f"steps={self.steps} network calls go through {levels} levels, but sigmas lists {listed}: list {levels}"
                f"{fitting}"
            )


@SAMPLERS.register("difflab.diffusion.samplers.edm_ablation:EDMAblationSampler.from_config")
class EDMAblationConfig(SamplerBase, ChurnKeys):
    """EDM's ablation: solver, time steps, time and scaling chosen one by one."""

    listed_by: ClassVar[str] = "discretization"

    kind: Literal["edm_ablation"]
    steps: int = Field(default=18, ge=1)
    """How many."""
    solver: Literal["euler", "heun"] = "heun"
    """euler, or heun: a second call at alpha of the way."""
    alpha: float = Field(default=1.0, gt=0, le=1)
    """1 is Heun's method, 0.5 the midpoint's."""
    discretization: Literal["vp", "ve", "iddpm", "edm", "listed"] = "edm"
    """The levels: vp, ve, iddpm, edm (EDM table 1), or listed."""
    schedule: Literal["linear", "vp", "ve"] = "linear"
    """sigma(t): linear (EDM, DDIM), ve (its square root), vp (that of linear betas)."""
    scaling: Literal["none", "vp"] = "none"
    """s(t): none, or vp, which keeps the variance."""
    sigma_min: float | None = Field(default=None, gt=0)
    """Lowest sigma / alpha; null: vp 0.0105, ve 0.02, iddpm and edm 0.002, within the process."""
    sigma_max: float | None = Field(default=None, gt=0)
    """Highest sigma / alpha; null: vp 152, ve 100, iddpm 81, edm 80, within the process."""
    rho: float = Field(default=7.0, gt=0)
    """Of discretization=edm."""
    epsilon_s: float = Field(default=1e-3, gt=0, lt=1)
    """Of discretization=vp: the least time."""
    c_1: float = Field(default=0.001, gt=0, lt=1)
    """Of discretization=iddpm: no row keeps less of alpha_bar."""
    c_2: float = Field(default=0.008, gt=0)
    """Of discretization=iddpm: where the cosine begins."""
    m: int = Field(default=1000, ge=1)
    """Of discretization=iddpm: how many rows."""
    snap: Snap = "none"
    """level moves to the nearest row of a table, as EDM does for iDDPM."""

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        every = tuple(f"discretization={one}" for one in ("edm", "ve", "vp", "iddpm"))
        check_ends(self.sigma_min, self.sigma_max, f"discretization={self.discretization}", every)
        return self

    def _listing(self, sigmas: Sequence[float]) -> dict[str, Any]:
        return {**super()._listing(sigmas), **NO_ENDS}


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPPSampler.from_config")
class DPMSolverPPConfig(ExponentialConfig):
    """DPM-Solver++, or DPM-Solver with prediction=eps."""

    kind: Literal["dpm_solver_pp"]
    variant: Literal["midpoint", "heun"] = "midpoint"
    """Of order 2: midpoint (the paper, diffusers, k-diffusion's dpmpp_2m) or heun."""
    second_derivative: Literal["half", "full"] = "half"
    """Of order 3: half (the authors' code, diffusers) or full (which makes it converge at order 3)."""


@SAMPLERS.register("difflab.diffusion.samplers.unipc:UniPCSampler.from_config")
class UniPCConfig(ExponentialConfig):
    """UniPC, a predictor with a corrector; one network call a step."""

    kind: Literal["unipc"]
    variant: Literal["bh1", "bh2"] = "bh2"
    """B(h): bh2 (diffusers' default) or bh1 (diffusers: without guidance below 10 steps)."""
    disable_corrector: list[NonNegativeInt] = Field(default_factory=list)
    """Steps whose result is left as predicted, 0 the first (the first few, where guidance is strong)."""


@SAMPLERS.register("difflab.diffusion.samplers.ancestral:AncestralSampler.from_config")
class AncestralConfig(StridedConfig):
    """DDPM's own sampler."""

    kind: Literal["ancestral"]


@SAMPLERS.register("difflab.diffusion.samplers.ddim:DDIMSampler.from_config")
class DDIMConfig(StridingConfig):
    """DDIM (Song et al. 2021), eq. 12."""

    kind: Literal["ddim"]
    eta: float = Field(default=0.0, ge=0)
    """Noise of eq. 16: 0 is deterministic, 1 as noisy as ancestral sampling."""


@SAMPLERS.register("difflab.diffusion.samplers.inversion:DDIMInversion.from_config")
class DDIMInversionConfig(StridedConfig):
    """From an image to its noise."""

    draws: ClassVar[bool] = False

    kind: Literal["ddim_inversion"]
    end: Literal["pure_noise", "last_row"] = "last_row"
    """pure_noise: ADM's ddim_reverse_sample; last_row: a step less, where DDIM decoding starts."""


@SAMPLERS.register("difflab.diffusion.samplers.plms:PLMSSampler.from_config")
class PLMSConfig(StridingConfig):
    """PLMS of latent diffusion, or PNDM with warm_up=runge_kutta; on the timesteps of a table."""

    kind: Literal["plms"]
    warm_up: Literal["improved_euler", "runge_kutta"] = "improved_euler"
    """The first steps: improved_euler (latent diffusion) or runge_kutta (PNDM eq. 13, diffusers)."""
