"""The `diffusion` group: schedule, prediction, variance, loss and timestep sampling of one stage."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

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


TimestepSampling = Annotated[UniformSampling | LossAwareSampling, Field(discriminator="kind")]


class DiffusionConfig(Config):
    """One diffusion process and how it is trained; configured once per stage, so nothing can disagree about it."""

    schedule: Schedule
    timesteps: int = Field(ge=1)
    prediction: Literal["eps", "x0", "v", "prev"]
    variance: Literal["fixed_small", "fixed_large", "learned", "learned_range"]
    posterior_clip: Literal["copy_second", "floor"] = "copy_second"
    time_input: Literal["index", "scaled_index", "sqrt_alpha_bar", "log_snr"] = "index"
    loss: Literal["mse", "l1", "kl", "rescaled_kl", "hybrid", "hybrid_unscaled"] = "mse"
    weighting: Literal["none", "min_snr"] = "none"
    min_snr_gamma: float = Field(default=5.0, gt=0)
    timestep_sampling: TimestepSampling = UniformSampling(kind="uniform")

    @property
    def learns_variance(self) -> bool:
        """Whether the network's output has twice the channels of its input."""
        return self.variance in ("learned", "learned_range")

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
        if self.timesteps < 2 and (schedule.zero_terminal_snr or schedule.kind == "jsd"):
            raise ValueError(f"schedule {schedule.kind} needs timesteps of 2 or more, got {self.timesteps}")
        if schedule.zero_terminal_snr or schedule.kind == "jsd":
            name = "zero_terminal_snr" if schedule.zero_terminal_snr else "schedule jsd"
            if self.prediction == "eps":
                raise ValueError(f"{name} ends in pure noise, where eps tells nothing of x0: set prediction to v or x0")
            if self.time_input == "log_snr":
                raise ValueError(f"{name} ends at a log-SNR of -infinity: set time_input to index or sqrt_alpha_bar")
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
        return self
