"""From the configuration of the diffusion, sampler and guidance groups to the objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from difflab.config.axes import DIFFUSIONS, SAMPLERS
from difflab.config.registry import load
from difflab.diffusion.base_process import Process
from difflab.diffusion.classifier_free import ClassifierFree
from difflab.diffusion.classifier_guidance import ClassifierGuidance
from difflab.diffusion.guidance import Guidance, GuidanceParts
from difflab.diffusion.losses import Loss
from difflab.diffusion.samplers.base import Sampler
from difflab.diffusion.thresholding import DynamicThreshold, StaticThreshold, Threshold
from difflab.diffusion.timesteps import TimestepSampler

if TYPE_CHECKING:
    from difflab.config.diffusion import DiffusionBase
    from difflab.config.guidance import ClassifierFreeOptions, ClassifierOptions, GuidanceConfig
    from difflab.config.sampler import SamplerConfig


def build_process(config: DiffusionBase) -> Process:
    """The training process. Model, loss, sampler and evaluation all take it from here."""
    return DIFFUSIONS.builder(config)(config)


def build_loss(config: DiffusionBase, process: Process) -> Loss:
    """The training loss on `build_process`'s result."""
    return load(config.loss_builder)(config, process)


def build_timesteps(config: DiffusionBase, process: Process) -> TimestepSampler:
    """How training times are drawn of `build_process`'s result: rows of a table, places between them, or positions in
    [0, 1).
    """
    return load(config.times_builder)(config, process)


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
