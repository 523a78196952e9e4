"""From the configuration of the diffusion, sampler and guidance groups to the objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from difflab.config.axes import SAMPLERS
from difflab.diffusion import schedules
from difflab.diffusion.base_process import Process
from difflab.diffusion.classifier_free import ClassifierFree
from difflab.diffusion.classifier_guidance import ClassifierGuidance
from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.guidance import Guidance, GuidanceParts
from difflab.diffusion.losses import DiffusionLoss
from difflab.diffusion.noise_laws import CosineLaw, LogNormalLaw, LogUniformLaw, NoiseLaw, VPLaw
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.base import Sampler
from difflab.diffusion.thresholding import DynamicThreshold, StaticThreshold, Threshold
from difflab.diffusion.timesteps import (
    LossAwareTimesteps,
    PiecewiseUniformTimesteps,
    TimestepSampler,
    UniformPositions,
    UniformTimesteps,
)
from difflab.diffusion.weighting import LossWeighting

if TYPE_CHECKING:
    from difflab.config.diffusion import ContinuousDiffusionConfig, DiffusionConfig, Schedule
    from difflab.config.guidance import ClassifierFreeOptions, ClassifierOptions, GuidanceConfig
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

_LAWS: dict[str, Callable[..., NoiseLaw]] = {
    "cosine": CosineLaw,
    "log_normal": LogNormalLaw,
    "vp": VPLaw,
    "log_uniform": LogUniformLaw,
}


def build_betas(schedule: Schedule, timesteps: int) -> schedules.Betas:
    """The betas [T] of a schedule. Raises ValueError where it cannot have so few steps."""
    options = _options(schedule)
    zero_terminal_snr = options.pop("zero_terminal_snr", False)
    betas = _BETAS[schedule.kind](timesteps, **options)
    return schedules.zero_terminal_snr(betas) if zero_terminal_snr else betas


def build_process(config: DiffusionConfig) -> Process:
    """The training process. Model, loss, sampler and evaluation all take it from here."""
    if config.kind == "continuous":
        return _continuous(config)
    return GaussianProcess(
        build_betas(config.schedule, config.timesteps),
        prediction=config.prediction,
        variance=config.variance,
        variance_mix=config.variance_mix,
        posterior_clip=config.posterior_clip,
        time_input=config.time_input,
    )


def _continuous(config: ContinuousDiffusionConfig) -> ContinuousProcess:
    ends = None if config.noise_min is None or config.noise_max is None else (config.noise_min, config.noise_max)
    return ContinuousProcess(
        _LAWS[config.law.kind](**_options(config.law)),
        prediction=config.prediction,
        time_input=config.time_input,
        m=config.m,
        sigma_data=config.sigma_data,
        noise_range=ends,
        variance=config.variance,
        variance_mix=config.variance_mix,
    )


def build_loss(config: DiffusionConfig, process: Process) -> DiffusionLoss:
    """The training loss on `build_process`'s result."""
    weighting = LossWeighting(
        config.weighting,
        gamma=config.min_snr_gamma,
        p2_k=config.p2_k,
        p2_gamma=config.p2_gamma,
        sigma_data=config.sigma_data,
    )
    vlb_lambda = config.vlb_lambda if config.kind == "discrete" else 0.0
    return DiffusionLoss(process, kind=config.loss, weighting=weighting, vlb_lambda=vlb_lambda)


def build_timesteps(config: DiffusionConfig, process: Process) -> TimestepSampler:
    """How training times are drawn of `build_process`'s result: rows of a table, places between
    them, or positions in [0, 1)."""
    if not isinstance(process, GaussianProcess) or config.kind == "continuous":
        return UniformPositions()
    sampling = config.timestep_sampling
    if sampling.kind == "loss_aware":
        return LossAwareTimesteps(process.num_timesteps, sampling.history_per_term, sampling.uniform_prob)
    if sampling.kind == "piecewise_uniform":
        return PiecewiseUniformTimesteps(process.alphas_cumprod, sampling.of)
    return UniformTimesteps(process.num_timesteps)


def build_sampler(config: SamplerConfig) -> Sampler:
    """The sampler with its steps and spacing."""
    return SAMPLERS.builder(config)(config)


def build_guidance(config: GuidanceConfig, parts: GuidanceParts | None = None) -> tuple[Guidance, ...]:
    """The guidance in the order it is applied, classifier-free before classifier; kind=none has none.

    Raises ValueError where a part is missing that the configuration needs.
    """
    parts = GuidanceParts() if parts is None else parts
    guidance: list[Guidance] = []
    free, classifier = config.classifier_free_options(), config.classifier_options()
    if free is not None:
        guidance.append(_classifier_free(free, parts))
    if classifier is not None:
        guidance.append(_classifier_guidance(classifier, parts))
    return tuple(guidance)


def _classifier_free(options: ClassifierFreeOptions, parts: GuidanceParts) -> ClassifierFree:
    scale = options.effective_scale
    if options.reference is not None and parts.reference is None:
        raise ValueError(f"guidance.reference needs the network of {options.reference.run}; load it first")
    if scale != 1.0 and options.reference is None and parts.null is None:
        raise ValueError(
            "classifier-free guidance needs a model that was trained with a condition dropped now and then "
            "(conditioning.<name>.drop_rate above 0); this one was not: set guidance.scale=1, or choose "
            "guidance=autoguidance or guidance=classifier"
        )
    return ClassifierFree(
        scale,
        null=parts.null if options.reference is None else None,
        reference=None if options.reference is None else parts.reference,
        interval=_interval(options),
        rescale=options.rescale,
        channels=options.channels,
        prediction=parts.prediction,
    )


def _classifier_guidance(options: ClassifierOptions, parts: GuidanceParts) -> ClassifierGuidance:
    if parts.log_prob is None:
        raise ValueError(
            "classifier guidance needs a noisy classifier and a class for every sample: give guidance.run=..., "
            "a run trained with task=noisy_classifier"
        )
    return ClassifierGuidance(parts.log_prob, options.scale, options.gradient_at, _interval(options))


def _interval(options: ClassifierFreeOptions | ClassifierOptions) -> tuple[float, float] | None:
    return None if options.interval is None else (options.interval[0], options.interval[1])


def build_threshold(config: GuidanceConfig) -> Threshold | None:
    """What keeps the predicted x0 in range, or None."""
    if config.threshold == "static":
        return StaticThreshold(config.static_limit)
    if config.threshold == "dynamic":
        return DynamicThreshold(config.dynamic_percentile, config.dynamic_maximum)
    return None


def _options(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config if name != "kind"}
