"""From the configuration of the diffusion, sampler and guidance groups to the objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from difflab.diffusion import schedules
from difflab.diffusion.classifier_free import ClassifierFree
from difflab.diffusion.classifier_guidance import ClassifierGuidance
from difflab.diffusion.guidance import Guidance, GuidanceParts
from difflab.diffusion.losses import DiffusionLoss
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers import AncestralSampler, DDIMInversion, DDIMSampler, StridedSampler
from difflab.diffusion.thresholding import DynamicThreshold, StaticThreshold, Threshold
from difflab.diffusion.timesteps import LossAwareTimesteps, TimestepSampler, UniformTimesteps

if TYPE_CHECKING:
    from difflab.config.diffusion import DiffusionConfig, Schedule
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
        interval=None if options.interval is None else (options.interval[0], options.interval[1]),
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
    return ClassifierGuidance(parts.log_prob, options.scale, options.gradient_at)


def build_threshold(config: GuidanceConfig) -> Threshold | None:
    """What keeps the predicted x0 in range, or None."""
    if config.threshold == "static":
        return StaticThreshold(config.static_limit)
    if config.threshold == "dynamic":
        return DynamicThreshold(config.dynamic_percentile, config.dynamic_maximum)
    return None


def _options(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config if name != "kind"}
