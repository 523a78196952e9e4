"""The further networks that a guidance asks: a noisy classifier, a weaker or unconditional reference network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from difflab.conditioning.config import ConditionerConfig
from difflab.config.guidance import GuidanceConfig, Weights
from difflab.config.model import DrawingModelConfig, NoisedModelConfig
from difflab.diffusion.build import build_process
from difflab.errors import UserError
from difflab.tasks.build import Model

Load = Callable[[str, Weights], Model]
"""(run, weights) -> the stored model; a sweep hands in one that loads each only once."""


@dataclass(frozen=True)
class Guides:
    """What a guidance asks besides the model itself; None where it asks nothing of the kind."""

    classifier: Model | None = None
    reference: Model | None = None

    @property
    def classes(self) -> int | None:
        """How many classes the classifier tells apart, None where there is none."""
        return None if self.classifier is None else self.classifier.config.logits


def load_guides(guidance: GuidanceConfig, model: DrawingModelConfig, load: Load) -> Guides:
    """Load what `guidance` names.

    Raises UserError for a run that cannot guide `model`: of another kind, image size, classes or noise schedule.
    """
    classifier = reference = None
    classifier_options, free = guidance.classifier_options(), guidance.classifier_free_options()
    if classifier_options is not None:
        classifier = load(classifier_options.run, classifier_options.weights)
        check_classifier(classifier_options.run, classifier.config, model)
    if free is not None and free.reference is not None:
        reference = load(free.reference.run, free.reference.weights)
        check_reference(free.reference.run, reference.config, model)
    return Guides(classifier, reference)


def check_classifier(run: str, classifier: NoisedModelConfig, model: DrawingModelConfig) -> None:
    """Raises UserError where the classifier cannot guide the model."""
    if classifier.logits is None:
        raise UserError(
            f"guidance: {run} is no noisy classifier but a model that draws; train one with task=noisy_classifier, "
            "as experiment=adm/shapes32_classifier does"
        )
    _check_same_images(f"guidance: the classifier {run}", classifier, model)
    _check_same_levels(f"guidance: the classifier {run}", classifier, model)
    for name, conditioner in model.conditioning.items():
        if conditioner.told_classes not in (None, classifier.logits):
            raise UserError(
                f"guidance: the classifier {run} tells {classifier.logits} classes apart, "
                f"conditioning.{name} of the model has {conditioner.told_classes}; take one trained on the same classes"
            )


def check_reference(run: str, reference: NoisedModelConfig, model: DrawingModelConfig) -> None:
    """Raises UserError where the reference network cannot stand beside the model."""
    if not isinstance(reference, DrawingModelConfig):
        raise UserError(f"guidance.reference: {run} is {reference.title} and predicts no image; name a diffusion model")
    _check_same_images(f"guidance.reference: {run}", reference, model)
    _check_same_levels(f"guidance.reference: {run}", reference, model)
    for name, conditioner in reference.conditioning.items():
        _check_told(f"guidance.reference: {run}", name, conditioner, model)


def _check_told(who: str, name: str, conditioner: ConditionerConfig, model: DrawingModelConfig) -> None:
    """A reference network is told what the model is told: it may want less, not more and nothing else."""
    known = [ours for ours in model.conditioning.values() if ours.kind == conditioner.kind]
    if not known:
        raise UserError(f"{who} has conditioning.{name} ({conditioner.kind}), of which the model knows nothing")
    for key in ("classes", "size"):
        theirs, ours = getattr(conditioner, key, None), getattr(known[0], key, None)
        if theirs != ours:
            raise UserError(
                f"{who} has conditioning.{name}.{key}={theirs}, the model has {ours}; take one trained on the same data"
            )


def _check_same_images(who: str, other: NoisedModelConfig, model: NoisedModelConfig) -> None:
    if other.shape != model.shape:
        raise UserError(f"{who} takes images {list(other.shape)}, the model draws {list(model.shape)}")


def _check_same_levels(who: str, other: NoisedModelConfig, model: NoisedModelConfig) -> None:
    if not build_process(model.diffusion).tells_alike(build_process(other.diffusion)):
        raise UserError(
            f"{who} was trained on another noise schedule ({other.diffusion.levels_in_words}) than the model "
            f"({model.diffusion.levels_in_words}), "
            "so step t is another noise level to it; take one trained with the model's diffusion"
        )
