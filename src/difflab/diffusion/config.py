"""Configuration of each kind of process, schedule, weighting and timestep sampling."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from difflab.config.axes import (
    DIFFUSIONS,
    PREDICTIONS,
    SCHEDULES,
    SIGMA_DISTRIBUTIONS,
    TIMESTEP_SAMPLINGS,
    WEIGHTINGS,
)
from difflab.config.diffusion import (
    BetaValue,
    CappedConfig,
    DiffusionBase,
    RampConfig,
    Schedule,
    ScheduleBase,
    SigmaDistributionBase,
    TimestepSamplingBase,
    WeightingBase,
)

_HERE = "difflab.diffusion"

for _name, _class in (("eps", "Eps"), ("x0", "X0"), ("v", "V"), ("prev", "Previous"), ("edm", "EDM"), ("ve", "VE")):
    PREDICTIONS.register(_name, f"{_HERE}.predictions:{_class}")


@SCHEDULES.register(f"{_HERE}.schedules:linear_betas")
class LinearSchedule(RampConfig):
    """Betas evenly spaced between two ends (DDPM, section 4)."""

    kind: Literal["linear"]
    scale_with_steps: bool = False
    """Multiply both ends by 1000 / timesteps (improved-diffusion, ADM)."""

    def check_timesteps(self, timesteps: int) -> None:
        end = self.beta_end * 1000 / timesteps
        if self.scale_with_steps and end >= 1:
            raise ValueError(
                f"schedule linear with scale_with_steps ends at beta={end:.3g} for timesteps={timesteps}: "
                "train with more timesteps (the sampler may take fewer), or set schedule.scale_with_steps=false"
            )
        super().check_timesteps(timesteps)


@SCHEDULES.register(f"{_HERE}.schedules:quad_betas")
class QuadSchedule(RampConfig):
    """Square roots of the betas evenly spaced."""

    kind: Literal["quad"]


@SCHEDULES.register(f"{_HERE}.schedules:quad_betas")
class ScaledLinearSchedule(RampConfig):
    """The formula of `quad` under Stable Diffusion's name, with its defaults."""

    kind: Literal["scaled_linear"]
    beta_start: BetaValue = 0.00085
    """The first beta (Stable Diffusion v1)."""
    beta_end: BetaValue = 0.012
    """The last beta (Stable Diffusion v1)."""


@SCHEDULES.register(f"{_HERE}.schedules:const_betas")
class ConstSchedule(ScheduleBase):
    """One beta for every step."""

    kind: Literal["const"]
    beta: BetaValue = 0.02
    """Beta of every step."""


@SCHEDULES.register(f"{_HERE}.schedules:jsd_betas")
class JSDSchedule(ScheduleBase):
    """1/T, 1/(T-1), ..., 1; ends in pure noise."""

    kind: Literal["jsd"]

    @property
    def ends_without_signal(self) -> str:
        return super().ends_without_signal or "schedule jsd"


@SCHEDULES.register(f"{_HERE}.schedules:warmup_betas")
class WarmupSchedule(RampConfig):
    """Linear over a fraction of the steps, then constant."""

    kind: Literal["warmup"]
    fraction: float = Field(default=0.1, gt=0, le=1)
    """Fraction of the steps that is linear."""


@SCHEDULES.register(f"{_HERE}.schedules:sqrt_betas")
class SqrtSchedule(RampConfig):
    """Square roots of evenly spaced numbers."""

    kind: Literal["sqrt"]


@SCHEDULES.register(f"{_HERE}.schedules:sigmoid_betas")
class SigmoidSchedule(RampConfig):
    """A sigmoid between two ends."""

    kind: Literal["sigmoid"]


@SCHEDULES.register(f"{_HERE}.schedules:cosine_betas")
class CosineSchedule(CappedConfig):
    """The cosine alpha_bar of Improved DDPM, eq. 17."""

    kind: Literal["cosine"]
    s: float = Field(default=0.008, ge=0)
    """Offset near t = 0 (section 3.2)."""


@SCHEDULES.register(f"{_HERE}.schedules:laplace_betas")
class LaplaceSchedule(CappedConfig):
    """Laplace-distributed log-SNR (Hang and Gu 2024)."""

    kind: Literal["laplace"]


@TIMESTEP_SAMPLINGS.register(f"{_HERE}.timesteps:UniformTimesteps.from_config")
class UniformSampling(TimestepSamplingBase):
    """Every timestep equally often."""

    kind: Literal["uniform"]


@TIMESTEP_SAMPLINGS.register(f"{_HERE}.timesteps:LossAwareTimesteps.from_config")
class LossAwareSampling(TimestepSamplingBase):
    """Timesteps sampled according to their recent losses (Improved DDPM, section 3.3)."""

    kind: Literal["loss_aware"]
    history_per_term: int = Field(default=10, ge=1)
    """Number of losses kept for each timestep."""
    uniform_prob: float = Field(default=0.001, ge=0, le=1)
    """Fraction of the probability mass that stays uniform."""


@TIMESTEP_SAMPLINGS.register(f"{_HERE}.timesteps:PiecewiseUniformTimesteps.from_config")
class PiecewiseUniformSampling(TimestepSamplingBase):
    """Noise levels between two steps: a step t of the table, then uniform between the levels of t - 1 and t (SR3)."""

    between_rows: ClassVar[bool] = True

    kind: Literal["piecewise_uniform"]
    of: Literal["alpha_bar", "sqrt_alpha_bar"] = "alpha_bar"
    """Which quantity is uniform: alpha_bar (the paper's gamma), or its square root (Janspiry's code)."""


@WEIGHTINGS.register(f"{_HERE}.weighting:MinSNR.from_config")
class MinSNRConfig(WeightingBase):
    """min(SNR, gamma) on the error of x0 (Hang et al. 2023)."""

    kind: Literal["min_snr"]
    gamma: float = Field(default=5.0, gt=0)
    """Upper bound on the SNR (section 3.4)."""
    floor: float = Field(default=0.0, ge=0)
    """Lower bound on the SNR; 1 is the truncated SNR of Salimans and Ho 2022. Without one, what is decided in nearly
    pure noise (colours, layout) is hardly trained."""

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.floor > self.gamma:
            raise ValueError(f"floor={self.floor} is above gamma={self.gamma}: lower it")
        return self


@WEIGHTINGS.register(f"{_HERE}.weighting:P2.from_config")
class P2Config(WeightingBase):
    """1 / (k + SNR)^gamma on the error of eps (Choi et al. 2022, eq. 8)."""

    kind: Literal["p2"]
    k: float = Field(default=1.0, gt=0)
    """Keeps the weight finite as the SNR goes to 0; 1 in the paper."""
    gamma: float = Field(default=1.0, ge=0)
    """How strongly low noise levels are down-weighted; the paper uses 1 or 0.5."""


@WEIGHTINGS.register(f"{_HERE}.weighting:EDMWeighting.from_config")
class EDMWeightingConfig(WeightingBase):
    """SNR + 1 / sigma_data^2 on the error of x0 (Karras et al. 2022, table 1); 1 on EDM's own prediction."""

    kind: Literal["edm"]


@DIFFUSIONS.register(f"{_HERE}.process:GaussianProcess.from_config")
class DiscreteDiffusionConfig(DiffusionBase):
    """A table of betas and its training options."""

    times_builder: ClassVar[str] = f"{_HERE}.timesteps:on_rows"

    kind: Literal["discrete"] = "discrete"
    schedule: Schedule
    """Schedule of the betas."""
    timesteps: int = Field(default=1000, ge=1)
    """Number of rows of the table (DDPM, section 4)."""
    variance: Literal["fixed_small", "fixed_large", "learned", "learned_range", "interpolated"] = "fixed_large"
    """Variance of p(x_{t-1} | x_t): the posterior's, beta, learned freely or between the two, or a fixed mix."""
    posterior_clip: Literal["copy_second", "floor"] = "copy_second"
    """Log-variance of the first row: copied from the second, or log(1e-20) (DDPM's older code)."""
    time_input: Literal["index", "scaled_index", "alpha_bar", "sqrt_alpha_bar", "log_snr"] = "index"
    """The network's time input: the row, the row * 1000 / timesteps, or the noise level (SR3: alpha_bar)."""
    loss: Literal["mse", "l1", "kl", "rescaled_kl", "hybrid", "hybrid_unscaled"] = "mse"
    """mse (DDPM eq. 14), l1 (SR3), a term of the bound, T times that, or mse plus the bound (Improved DDPM eq. 16)."""
    vlb_lambda: float = Field(default=0.001, gt=0)
    """Weight of the bound in loss=hybrid (Improved DDPM, eq. 16)."""
    timestep_sampling: Annotated[TimestepSamplingBase, TIMESTEP_SAMPLINGS] = UniformSampling(kind="uniform")
    """Distribution of training timesteps."""

    @property
    def levels_in_words(self) -> str:
        return f"{self.schedule.kind}, {self.timesteps} steps"

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        self.schedule.check_timesteps(self.timesteps)
        name = self.schedule.ends_without_signal
        if name is not None:
            if self.prediction == "eps":
                raise ValueError(f"{name} ends in pure noise, where eps does not give x0: set prediction to v or x0")
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
        if self.timestep_sampling.between_rows:
            kind = self.timestep_sampling.kind
            if self.loss not in ("mse", "l1"):
                raise ValueError(
                    f"loss={self.loss} is a bound on steps of the table, but timestep_sampling={kind} trains between "
                    f"them: set loss=mse or loss=l1"
                )
            if self.prediction == "prev":
                raise ValueError(
                    f"prediction=prev is the mean of a step of the table, but timestep_sampling={kind} trains between "
                    "them: set prediction to eps, x0 or v"
                )
        return self


@SIGMA_DISTRIBUTIONS.register(f"{_HERE}.levels.distributions:CosineDistribution")
class CosineDistributionConfig(SigmaDistributionBase):
    """The cosine schedule truncated at both ends of the log-SNR (classifier-free guidance, section 2)."""

    kind: Literal["cosine"]
    log_snr_min: float = Field(default=-20.0, ge=-50)
    """Log-SNR of the noisiest level (section 4)."""
    log_snr_max: float = Field(default=20.0, le=50)
    """Log-SNR of the cleanest level (section 4)."""

    @model_validator(mode="after")
    def _ends_are_ordered(self) -> Self:
        if self.log_snr_min >= self.log_snr_max:
            raise ValueError(f"log_snr_min={self.log_snr_min} must be below log_snr_max={self.log_snr_max}")
        return self


@SIGMA_DISTRIBUTIONS.register(f"{_HERE}.levels.distributions:LogNormalDistribution")
class LogNormalDistributionConfig(SigmaDistributionBase):
    """Log-normal sigma (EDM)."""

    has_ends: ClassVar[bool] = False

    kind: Literal["log_normal"]
    mean: float = -1.2
    """P_mean (EDM table 1)."""
    std: float = Field(default=1.2, gt=0)
    """P_std (EDM table 1)."""


@SIGMA_DISTRIBUTIONS.register(f"{_HERE}.levels.distributions:VPDistribution")
class VPDistributionConfig(SigmaDistributionBase):
    """Linear beta in continuous time (Song et al. 2021)."""

    has_vp_time: ClassVar[bool] = True

    kind: Literal["vp"]
    beta_d: float = Field(default=19.9, ge=0)
    """beta(t) = beta_min + beta_d t (EDM table 1)."""
    beta_min: float = Field(default=0.1, ge=0)
    """beta at t = 0 (EDM table 1)."""
    eps_t: float = Field(default=1e-5, gt=0, lt=1)
    """Smallest training time (EDM's VPLoss; sampling ends at 1e-3 in Song et al.)."""


@SIGMA_DISTRIBUTIONS.register(f"{_HERE}.levels.distributions:LogUniformDistribution")
class LogUniformDistributionConfig(SigmaDistributionBase):
    """Log-uniform sigma (the VE process of Song et al. 2021)."""

    kind: Literal["log_uniform"]
    sigma_min: float = Field(default=0.02, gt=0)
    """Lowest sigma (EDM table 1)."""
    sigma_max: float = Field(default=100.0, gt=0)
    """Highest sigma (EDM table 1)."""

    @model_validator(mode="after")
    def _ends_are_ordered(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min={self.sigma_min} must be below sigma_max={self.sigma_max}")
        return self


@DIFFUSIONS.register(f"{_HERE}.continuous_process:ContinuousProcess.from_config")
class ContinuousDiffusionConfig(DiffusionBase):
    """A process in continuous time: the distribution of training noise levels and the network's time input."""

    kind: Literal["continuous"]
    sigma_distribution: Annotated[SigmaDistributionBase, SIGMA_DISTRIBUTIONS]
    """Distribution of the training sigma / alpha."""
    time_input: Literal["log_snr", "edm", "vp", "ve"] = "log_snr"
    """The network's time input: the log-SNR, or c_noise of EDM table 1 (edm: ln(sigma) / 4, vp: (m - 1) t,
    ve: ln(sigma / 2))."""
    m: int = Field(default=1000, ge=2)
    """M of time_input=vp: the number of steps of the table whose index it is (EDM table 1)."""
    sigma_min: float | None = Field(default=None, gt=0)
    """Lowest sigma / alpha that samplers visit; null for the end of the distribution."""
    sigma_max: float | None = Field(default=None, gt=0)
    """Highest sigma / alpha that samplers visit; null for the end of the distribution."""
    variance: Literal["fixed_small", "fixed_large", "interpolated"] = "fixed_large"
    """Variance of ancestral steps."""
    loss: Literal["mse", "l1"] = "mse"
    """Error of the network's prediction: squared (mse) or absolute (l1)."""

    @property
    def levels_in_words(self) -> str:
        return f"{self.sigma_distribution.kind}, in continuous time"

    @model_validator(mode="after")
    def _check(self) -> Self:
        kind = self.sigma_distribution.kind
        if self.prediction == "prev":
            raise ValueError("prediction=prev is the mean of a step on a table: set prediction to eps, x0 or v")
        if (self.sigma_min is None) != (self.sigma_max is None):
            raise ValueError("set both sigma_min and sigma_max, or neither")
        if self.sigma_min is not None and self.sigma_max is not None and self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min={self.sigma_min} must be below sigma_max={self.sigma_max}")
        if not self.sigma_distribution.has_ends and self.sigma_min is None:
            raise ValueError(
                f"sigma_distribution={kind} is unbounded: set sigma_min and sigma_max, in EDM 0.002 and 80"
            )
        if self.time_input == "vp" and not self.sigma_distribution.has_vp_time:
            raise ValueError(f"time_input=vp needs sigma_distribution=vp, not {kind}: set time_input=edm")
        if self.m != 1000 and self.time_input != "vp":
            raise ValueError(f"m={self.m} needs time_input=vp, not time_input={self.time_input}: remove m")
        return self
