"""The `diffusion` group: schedule, prediction, variance, loss and timestep sampling of one stage."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from difflab.config.base import Config

BetaValue = Annotated[float, Field(gt=0, lt=1)]


class _Schedule(Config):
    zero_terminal_snr: bool = False


class _Ramp(_Schedule):
    beta_start: BetaValue = 1e-4
    beta_end: BetaValue = 0.02


class LinearSchedule(_Ramp):
    """Betas evenly spaced between two ends; `scale_with_steps` multiplies both by 1000 / timesteps."""

    kind: Literal["linear"]
    scale_with_steps: bool = False


class QuadSchedule(_Ramp):
    """Square roots of the betas evenly spaced."""

    kind: Literal["quad"]


class ScaledLinearSchedule(_Ramp):
    """The formula of `quad` under the name of Stable Diffusion, with its ends."""

    kind: Literal["scaled_linear"]
    beta_start: BetaValue = 0.00085
    beta_end: BetaValue = 0.012


class ConstSchedule(_Schedule):
    """One beta for every step."""

    kind: Literal["const"]
    beta: BetaValue = 0.02


class JSDSchedule(_Schedule):
    """1/T, 1/(T-1), ..., 1."""

    kind: Literal["jsd"]


class WarmupSchedule(_Ramp):
    """Linear over a fraction of the steps, then constant."""

    kind: Literal["warmup"]
    fraction: float = Field(default=0.1, gt=0, le=1)


class SqrtSchedule(_Ramp):
    """Square roots of evenly spaced numbers."""

    kind: Literal["sqrt"]


class SigmoidSchedule(_Ramp):
    """A sigmoid between two ends."""

    kind: Literal["sigmoid"]


class CosineSchedule(_Schedule):
    """The cosine alpha_bar of Improved DDPM."""

    kind: Literal["cosine"]
    s: float = Field(default=0.008, ge=0)
    max_beta: BetaValue = 0.999


class LaplaceSchedule(_Schedule):
    """Laplace-distributed log-SNR."""

    kind: Literal["laplace"]
    max_beta: BetaValue = 0.999


Schedule = Annotated[
    LinearSchedule
    | QuadSchedule
    | ScaledLinearSchedule
    | ConstSchedule
    | JSDSchedule
    | WarmupSchedule
    | SqrtSchedule
    | SigmoidSchedule
    | CosineSchedule
    | LaplaceSchedule,
    Field(discriminator="kind"),
]


class UniformSampling(Config):
    """Every timestep equally often."""

    kind: Literal["uniform"]


class LossAwareSampling(Config):
    """Timesteps by the size of their recent losses."""

    kind: Literal["loss_aware"]
    history_per_term: int = Field(default=10, ge=1)
    uniform_prob: float = Field(default=0.001, ge=0, le=1)


class PiecewiseUniformSampling(Config):
    """Noise levels between two steps: a step t of the table, then uniform between the levels of t - 1 and t (SR3).

    of: what is uniform there: alpha_bar (the paper's gamma), or its square root (Janspiry's code).
    """

    kind: Literal["piecewise_uniform"]
    of: Literal["alpha_bar", "sqrt_alpha_bar"] = "alpha_bar"


TimestepSampling = Annotated[
    UniformSampling | LossAwareSampling | PiecewiseUniformSampling, Field(discriminator="kind")
]


class _TrainingObjective(Config):
    """What both kinds of process share: how errors count.

    weighting: of the squared error: none; min_snr (min_snr_gamma); p2 (p2_k, p2_gamma); edm (with sigma_data).
    """

    loss: str
    weighting: Literal["none", "min_snr", "p2", "edm"] = "none"
    min_snr_gamma: float = Field(default=5.0, gt=0)
    p2_k: float = Field(default=1.0, gt=0)
    p2_gamma: float = Field(default=1.0, ge=0)
    variance_mix: float = Field(default=0.0, ge=0, le=1)
    sigma_data: float = Field(default=0.5, gt=0)

    @property
    def learns_variance(self) -> bool:
        """Whether the network's output has twice the channels of its input."""
        return getattr(self, "variance", None) in ("learned", "learned_range")


class DiscreteDiffusionConfig(_TrainingObjective):
    """A table of betas and how it is trained; configured once per stage, so nothing can disagree about it.

    variance_mix: v of variance=interpolated, fixed_small^(1-v) fixed_large^v.
    vlb_lambda: weight of the bound in loss=hybrid.
    """

    kind: Literal["discrete"] = "discrete"
    schedule: Schedule
    timesteps: int = Field(ge=1)
    prediction: Literal["eps", "x0", "v", "prev"]
    variance: Literal["fixed_small", "fixed_large", "learned", "learned_range", "interpolated"]
    posterior_clip: Literal["copy_second", "floor"] = "copy_second"
    time_input: Literal["index", "scaled_index", "alpha_bar", "sqrt_alpha_bar", "log_snr"] = "index"
    loss: Literal["mse", "l1", "kl", "rescaled_kl", "hybrid", "hybrid_unscaled"] = "mse"
    vlb_lambda: float = Field(default=0.001, gt=0)
    timestep_sampling: TimestepSampling = UniformSampling(kind="uniform")

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        schedule = self.schedule
        if isinstance(schedule, LinearSchedule) and schedule.scale_with_steps:
            end = schedule.beta_end * 1000 / self.timesteps
            if end >= 1:
                raise ValueError(
                    f"schedule linear with scale_with_steps ends at beta={end:.3g} for timesteps={self.timesteps}: "
                    "train with more timesteps (the sampler may take fewer), or set schedule.scale_with_steps=false"
                )
        if self.timesteps < 2 and schedule.zero_terminal_snr:
            raise ValueError(f"schedule {schedule.kind} needs timesteps of 2 or more, got {self.timesteps}")
        if schedule.zero_terminal_snr or schedule.kind == "jsd":
            name = "zero_terminal_snr" if schedule.zero_terminal_snr else "schedule jsd"
            if self.prediction == "eps":
                raise ValueError(f"{name} ends in pure noise, where eps tells nothing of x0: set prediction to v or x0")
            if self.time_input == "log_snr":
                raise ValueError(f"{name} ends at a log-SNR of -infinity: set time_input to index or alpha_bar")
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> Self:
        if self.learns_variance and self.loss in ("mse", "l1"):
            raise ValueError(
                f"loss={self.loss} does not train variance={self.variance}: set loss=hybrid, or variance=fixed_large"
            )
        if not self.learns_variance and self.loss in ("hybrid", "hybrid_unscaled"):
            raise ValueError(f"loss={self.loss} needs a learned variance: set variance=learned_range, or loss=mse")
        if self.weighting != "none" and (self.loss in ("l1", "kl", "rescaled_kl") or self.prediction == "prev"):
            raise ValueError(
                f"weighting={self.weighting} weighs the squared error of eps, x0 or v, not loss={self.loss} of "
                f"prediction={self.prediction}: set weighting=none"
            )
        if self.timestep_sampling.kind == "piecewise_uniform":
            if self.loss not in ("mse", "l1"):
                raise ValueError(
                    f"loss={self.loss} has a bound on steps of the table, between which timestep_sampling="
                    "piecewise_uniform trains: set loss=mse or loss=l1"
                )
            if self.prediction == "prev":
                raise ValueError(
                    "prediction=prev is the mean of a step of the table, between which timestep_sampling="
                    "piecewise_uniform trains: set prediction to eps, x0 or v"
                )
        return self


class CosineLawConfig(Config):
    """The cosine schedule cut off at both ends of the log-SNR (classifier-free guidance, section 2)."""

    kind: Literal["cosine"]
    log_snr_min: float = Field(default=-20.0, ge=-50)
    log_snr_max: float = Field(default=20.0, le=50)

    @model_validator(mode="after")
    def _ends_are_ordered(self) -> Self:
        if self.log_snr_min >= self.log_snr_max:
            raise ValueError(f"log_snr_min={self.log_snr_min} must be below log_snr_max={self.log_snr_max}")
        return self


class LogNormalLawConfig(Config):
    """The logarithm of the noise is normal (EDM)."""

    kind: Literal["log_normal"]
    mean: float = -1.2
    std: float = Field(default=1.2, gt=0)


class VPLawConfig(Config):
    """Linear beta in continuous time (Song et al. 2021)."""

    kind: Literal["vp"]
    beta_d: float = Field(default=19.9, ge=0)
    beta_min: float = Field(default=0.1, ge=0)
    eps_t: float = Field(default=1e-5, gt=0, lt=1)


class LogUniformLawConfig(Config):
    """The logarithm of the noise is uniform (the VE process of Song et al. 2021)."""

    kind: Literal["log_uniform"]
    noise_min: float = Field(default=0.02, gt=0)
    noise_max: float = Field(default=100.0, gt=0)

    @model_validator(mode="after")
    def _ends_are_ordered(self) -> Self:
        if self.noise_min >= self.noise_max:
            raise ValueError(f"noise_min={self.noise_min} must be below noise_max={self.noise_max}")
        return self


NoiseLawConfig = Annotated[
    CosineLawConfig | LogNormalLawConfig | VPLawConfig | LogUniformLawConfig, Field(discriminator="kind")
]


class ContinuousDiffusionConfig(_TrainingObjective):
    """A process in continuous time: the noise levels that are trained on, and what the network is told and regresses.

    law: the distribution of training noise. m: M of time_input=vp, which is (m - 1) t. noise_min, noise_max: the
    sigma / alpha that samplers visit; null = the ends of the law. variance: of ancestral steps.
    """

    kind: Literal["continuous"]
    law: NoiseLawConfig
    prediction: Literal["eps", "x0", "v", "edm", "ve"]
    time_input: Literal["log_snr", "edm", "vp", "ve"] = "log_snr"
    m: int = Field(default=1000, ge=2)
    noise_min: float | None = Field(default=None, gt=0)
    noise_max: float | None = Field(default=None, gt=0)
    variance: Literal["fixed_small", "fixed_large", "interpolated"] = "fixed_large"
    loss: Literal["mse", "l1"] = "mse"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.noise_min is None) != (self.noise_max is None):
            raise ValueError("noise_min and noise_max are given together, or neither")
        if self.noise_min is not None and self.noise_max is not None and self.noise_min >= self.noise_max:
            raise ValueError(f"noise_min={self.noise_min} must be below noise_max={self.noise_max}")
        if self.law.kind == "log_normal" and self.noise_min is None:
            raise ValueError("law=log_normal has no ends: give noise_min and noise_max, in EDM 0.002 and 80")
        if self.time_input == "vp" and self.law.kind != "vp":
            raise ValueError(f"time_input=vp is the time of law vp, not of law {self.law.kind}: set time_input=edm")
        if self.m != 1000 and self.time_input != "vp":
            raise ValueError(f"m={self.m} is of time_input=vp, not of time_input={self.time_input}: leave it out")
        if self.weighting != "none" and self.loss == "l1":
            raise ValueError(f"weighting={self.weighting} weighs the squared error, not loss=l1: set weighting=none")
        return self


def _kind_of(value: object) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "discrete" if kind is None else str(kind)


DiffusionConfig = Annotated[
    Annotated[DiscreteDiffusionConfig, Tag("discrete")] | Annotated[ContinuousDiffusionConfig, Tag("continuous")],
    Discriminator(_kind_of),
]
"""Models stored before there was a choice do not say their kind: it is a table."""
