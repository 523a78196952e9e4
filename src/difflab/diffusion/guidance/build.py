"""Builds guidance from the options of each kind, in the order it is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from difflab.config.axes import GUIDANCE
from difflab.diffusion.guidance.base import Guidance, GuidanceParts
from difflab.diffusion.guidance.classifier import ClassifierGuidance
from difflab.diffusion.guidance.classifier_free import ClassifierFree

if TYPE_CHECKING:
    from difflab.config.guidance import GuidanceOptions, Interval
    from difflab.diffusion.guidance.config import ClassifierFreeOptions, ClassifierOptions, ComposedGuidance


def nothing(options: GuidanceOptions, parts: GuidanceParts) -> tuple[Guidance, ...]:
    """Returns no guidance: the network's own prediction is used."""
    return ()


def classifier_free(options: ClassifierFreeOptions, parts: GuidanceParts) -> tuple[Guidance, ...]:
    """Builds classifier-free guidance. Raises ValueError if the reference, or a needed null condition, is missing."""
    scale, reference = options.effective_scale, parts.guides.get("reference")
    if options.reference is not None and reference is None:
        raise ValueError(f"guidance.reference needs the network of {options.reference.run}; load it first")
    if options.needs_null and parts.null is None:
        raise ValueError(
            "classifier-free guidance needs a model that was trained with a condition dropped now and then "
            "(conditioning.<name>.drop_rate above 0); this one was not: set guidance.scale=1, or choose "
            "guidance=autoguidance or guidance=classifier"
        )
    guidance = ClassifierFree(
        scale,
        null=parts.null if options.reference is None else None,
        reference=None if options.reference is None else reference,
        interval=_interval(options.interval),
        rescale=options.rescale,
        channels=options.channels,
        prediction=parts.prediction,
    )
    return (guidance,)


def classifier(options: ClassifierOptions, parts: GuidanceParts) -> tuple[Guidance, ...]:
    """Builds classifier guidance. Raises ValueError if the classifier is missing."""
    log_prob = parts.guides.get("classifier")
    if log_prob is None:
        raise ValueError(
            "classifier guidance needs a noisy classifier and a class for every sample: give guidance.run=..., "
            "a run trained with task=noisy_classifier"
        )
    return (ClassifierGuidance(log_prob, options.scale, options.gradient_at, _interval(options.interval)),)


def composed(options: ComposedGuidance, parts: GuidanceParts) -> tuple[Guidance, ...]:
    """Builds every part as its own kind does, in order."""
    return tuple(one for kind, part in options.parts.items() for one in GUIDANCE[kind].load_builder()(part, parts))


def _interval(interval: Interval | None) -> tuple[float, float] | None:
    return None if interval is None else (interval[0], interval[1])
