"""From the configuration of the diffusion, sampler and guidance groups to the objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from difflab.diffusion import schedules
from difflab.diffusion.guidance import Guidance
from difflab.diffusion.losses import DiffusionLoss
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers import AncestralSampler, DDIMInversion, DDIMSampler, StridedSampler
from difflab.diffusion.thresholding import DynamicThreshold, StaticThreshold, Threshold
from difflab.diffusion.timesteps import LossAwareTimesteps, TimestepSampler, UniformTimesteps

if TYPE_CHECKING:
    from difflab.config.diffusion import DiffusionConfig, Schedule
    from difflab.config.guidance import GuidanceConfig
    from difflab.config.sampler import SamplerConfig

_BETAS = {
    "linear": schedules.linear_betas,
    "quad": schedules.quad_betas,
    "scaled_linear": schedules.quad_betas,
    "const": schedules.const_betas,
    "jsd": schedules.jsd_betas,
    "warmup": schedules.warmup_betas,
    "sqrt": schedules.sqrt_betas,
    "sigmoid": schedules.sigmoid_betas,
    "cosine": schedules.cosine_betas,
    "laplace": schedules.laplace_betas,
}

_SAMPLERS: dict[str, type[StridedSampler]] = {
    "ancestral": AncestralSampler,
    "ddim": DDIMSampler,
    "ddim_inversion": DDIMInversion,
}


def build_betas(schedule: Schedule, timesteps: int) -> schedules.Betas:
    """The betas [T] of a schedule. Raises ValueError where it cannot have so few steps."""
    options = _options(schedule)
    zero_terminal_snr = options.pop("zero_terminal_snr", False)
    betas = _BETAS[schedule.kind](timesteps, **options)
    return schedules.zero_terminal_snr(betas) if zero_terminal_snr else betas


def build_process(config: DiffusionConfig) -> GaussianProcess:
    """The training process. Model, loss, sampler and evaluation all take it from here."""
    return GaussianProcess(
        build_betas(config.schedule, config.timesteps),
        prediction=config.prediction,
        variance=config.variance,
        posterior_clip=config.posterior_clip,
        time_input=config.time_input,
    )


def build_loss(config: DiffusionConfig, process: GaussianProcess) -> DiffusionLoss:
    """The training loss on `build_process`'s result."""
    return DiffusionLoss(process, kind=config.loss, weighting=config.weighting, gamma=config.min_snr_gamma)


def build_timesteps(config: DiffusionConfig, process: GaussianProcess) -> TimestepSampler:
    """How training timesteps are drawn from the rows of `build_process`'s result."""
    sampling = config.timestep_sampling
    if sampling.kind == "loss_aware":
        return LossAwareTimesteps(process.num_timesteps, sampling.history_per_term, sampling.uniform_prob)
    return UniformTimesteps(process.num_timesteps)


def build_sampler(config: SamplerConfig) -> StridedSampler:
    """The sampler with its steps and spacing."""
    return _SAMPLERS[config.kind](**_options(config))


def build_guidance(config: GuidanceConfig) -> tuple[Guidance, ...]:
    """The guidance, in the order it is applied; kind=none has none."""
    assert config.kind == "none", "the configuration knows no other kind"
    return ()


def build_threshold(config: GuidanceConfig) -> Threshold | None:
    """What keeps the predicted x0 in range, or None."""
    if config.threshold == "static":
        return StaticThreshold(config.static_limit)
    if config.threshold == "dynamic":
        return DynamicThreshold(config.dynamic_percentile, config.dynamic_maximum)
    return None


def _options(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config if name != "kind"}
