"""Configuration of each kind of sampler, besides the options shared by its family."""

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
    """Euler's method on the probability-flow ODE; the same as DDIM without churn."""

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
    """Linear multistep: one network call per step, with `order` slopes."""

    kind: Literal["lms"]
    order: int = Field(default=4, ge=1, le=4)
    """Number of slopes combined; 1 is Euler."""


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPP2SAncestralSampler.from_config")
class DPMSolverPP2SAncestralConfig(AncestralNoiseConfig):
    """DPM-Solver++(2S) with new noise in every step."""

    kind: Literal["dpm_solver_pp_2s_ancestral"]


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPPSDESampler.from_config")
class DPMSolverPPSDEConfig(AncestralNoiseConfig):
    """DPM-Solver++ on the SDE with two network calls per step, the second after a fraction r of it."""

    kind: Literal["dpm_solver_pp_sde"]
    r: float = Field(default=0.5, gt=0, lt=1)
    """Position of the second call, as a fraction of the step in log-SNR."""


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPP2MSDESampler.from_config")
class DPMSolverPP2MSDEConfig(MultistepSDEConfig):
    """DPM-Solver++(2M) on the SDE."""

    kind: Literal["dpm_solver_pp_2m_sde"]
    solver: Literal["midpoint", "heun"] = "midpoint"
    """Weights of the last two x0: midpoint (k-diffusion, diffusers) or heun."""


@SAMPLERS.register("difflab.diffusion.samplers.dpm_solver_pp:DPMSolverPP3MSDESampler.from_config")
class DPMSolverPP3MSDEConfig(MultistepSDEConfig):
    """DPM-Solver++(3M) on the SDE."""

    kind: Literal["dpm_solver_pp_3m_sde"]


@SAMPLERS.register("difflab.diffusion.samplers.dpm_fast:DPMFastSampler.from_config")
class DPMFastConfig(SamplerBase):
    """DPM-Solver-fast: a fixed total of network calls, in steps of third order; ends at the lowest level."""

    kind: Literal["dpm_fast"]
    steps: int = Field(default=20, ge=1)
    """Total number of network calls; Lu et al. 2022 need 10 to 20."""
    spacing: Literal["exponential", "listed"] = "exponential"
    """exponential: even in log-SNR; listed: between the sigmas of `sigmas`, one more than steps."""
    sigma_min: float | None = Field(default=None, gt=0)
    """Final sigma / alpha; null for that of the process, at least 0.002."""
    sigma_max: float | None = Field(default=None, gt=0)
    """Highest sigma / alpha; null for that of the process, at most 80."""
    snap: Snap = "none"
    """Rounding of levels to rows of a table, as in the other samplers between levels."""
    eta: float = Field(default=0.0, ge=0, le=1)
    """Noise added in each step: 0 for none (the ODE), 1 for as much as DDPM."""
    s_noise: float = Field(default=1.0, gt=0)
    """Standard deviation of the added noise (s_noise of k-diffusion)."""

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
        """Raises ValueError if the network calls need a different number of levels."""
        levels = -(-self.steps // 3) + 1 if self.steps % 3 else self.steps // 3 + 2
        if listed != levels:
            fewest = max(1, 3 * (listed - 2))
            fitting = "" if listed < 2 else f", or set steps={fewest} to {3 * (listed - 2) + 2}"
            raise ValueError(
                f"steps={self.steps} network calls need {levels} levels, but sigmas lists {listed}: list {levels}"
                f"{fitting}"
            )


@SAMPLERS.register("difflab.diffusion.samplers.edm_ablation:EDMAblationSampler.from_config")
class EDMAblationConfig(SamplerBase, ChurnKeys):
    """EDM's ablation: solver, time steps, schedule and scaling chosen separately."""

    listed_by: ClassVar[str] = "discretization"

    kind: Literal["edm_ablation"]
    steps: int = Field(default=18, ge=1)
    """Number of steps."""
    solver: Literal["euler", "heun"] = "heun"
    """euler, or heun: a second call after a fraction alpha of the step."""
    alpha: float = Field(default=1.0, gt=0, le=1)
    """1 is Heun's method, 0.5 the midpoint method."""
    discretization: Literal["vp", "ve", "iddpm", "edm", "listed"] = "edm"
    """The levels: vp, ve, iddpm, edm (EDM table 1), or listed."""
    schedule: Literal["linear", "vp", "ve"] = "linear"
    """sigma(t): linear (EDM, DDIM), ve (its square root), vp (that of linear betas)."""
    scaling: Literal["none", "vp"] = "none"
    """s(t): none, or vp, which preserves the variance."""
    sigma_min: float | None = Field(default=None, gt=0)
    """Lowest sigma / alpha; null: vp 0.0105, ve 0.02, iddpm and edm 0.002, within the process."""
    sigma_max: float | None = Field(default=None, gt=0)
    """Highest sigma / alpha; null: vp 152, ve 100, iddpm 81, edm 80, within the process."""
    rho: float = Field(default=7.0, gt=0)
    """Exponent of discretization=edm."""
    epsilon_s: float = Field(default=1e-3, gt=0, lt=1)
    """Smallest time of discretization=vp."""
    c_1: float = Field(default=0.001, gt=0, lt=1)
    """For discretization=iddpm: lower bound on alpha_bar of a row relative to the row before."""
    c_2: float = Field(default=0.008, gt=0)
    """For discretization=iddpm: offset of the cosine."""
    m: int = Field(default=1000, ge=1)
    """For discretization=iddpm: number of rows."""
    snap: Snap = "none"
    """level rounds to the nearest row of a table, as EDM does for iDDPM; none keeps the level."""

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
    """For order 2: midpoint (the paper, diffusers, k-diffusion's dpmpp_2m) or heun."""
    second_derivative: Literal["half", "full"] = "half"
    """For order 3: half (the authors' code, diffusers) or full (which makes it converge at order 3)."""


@SAMPLERS.register("difflab.diffusion.samplers.unipc:UniPCSampler.from_config")
class UniPCConfig(ExponentialConfig):
    """UniPC, a predictor with a corrector; one network call per step."""

    kind: Literal["unipc"]
    variant: Literal["bh1", "bh2"] = "bh2"
    """B(h): bh2 (diffusers' default) or bh1 (diffusers: without guidance below 10 steps)."""
    disable_corrector: list[NonNegativeInt] = Field(default_factory=list)
    """Steps whose result is not corrected, 0 the first (the first few, for strong guidance)."""


@SAMPLERS.register("difflab.diffusion.samplers.ancestral:AncestralSampler.from_config")
class AncestralConfig(StridedConfig):
    """DDPM's own sampler."""

    kind: Literal["ancestral"]


@SAMPLERS.register("difflab.diffusion.samplers.ddim:DDIMSampler.from_config")
class DDIMConfig(StridingConfig):
    """DDIM (Song et al. 2021), eq. 12."""

    kind: Literal["ddim"]
    eta: float = Field(default=0.0, ge=0)
    """Eq. 16: 0 is deterministic, 1 is as noisy as ancestral sampling."""


@SAMPLERS.register("difflab.diffusion.samplers.inversion:DDIMInversion.from_config")
class DDIMInversionConfig(StridedConfig):
    """DDIM inversion, from an image to its noise."""

    draws: ClassVar[bool] = False

    kind: Literal["ddim_inversion"]
    end: Literal["pure_noise", "last_row"] = "last_row"
    """pure_noise: ADM's ddim_reverse_sample; last_row: one step less, where DDIM decoding starts."""


@SAMPLERS.register("difflab.diffusion.samplers.plms:PLMSSampler.from_config")
class PLMSConfig(StridingConfig):
    """PLMS of latent diffusion, or PNDM with warm_up=runge_kutta; on the timesteps of a table."""

    kind: Literal["plms"]
    warm_up: Literal["improved_euler", "runge_kutta"] = "improved_euler"
    """Method of the first steps: improved_euler (latent diffusion) or runge_kutta (PNDM eq. 13, diffusers)."""
