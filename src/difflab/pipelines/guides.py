"""The additional networks of a guidance: a noisy classifier, or a weaker or unconditional reference network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from difflab.conditioning.base import ConditionerSet
from difflab.conditioning.config import ConditionerConfig
from difflab.config.guidance import GuidanceBase, GuideRun, Weights
from difflab.config.model import DrawingModelConfig, NoisedModelConfig
from difflab.config.registry import load as load_named
from difflab.devices import under_autocast
from difflab.diffusion.base_process import Process
from difflab.diffusion.build import build_process
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.guidance.base import LogProb
from difflab.diffusion.guidance.config import ReferenceConfig
from difflab.errors import UserError
from difflab.tasks.build import Model, NoisedModel
from difflab.types import Batch, Denoiser, Network, NoiseLevel

Load = Callable[[str, Weights], Model]
"""(run, weights) -> the stored model; a sweep passes one that loads each model once."""


@dataclass(frozen=True)
class Drawn:
    """The samples in progress, as a guide needs them.

    batch:    their conditioning, on the model's device.
    seeds:    one per sample.
    autocast: dtype of the networks' arithmetic, None for full precision.
    respaced: a process restricted to the sampler's steps.
    compiled: a network as it is run in every step.
    """

    batch: Batch
    seeds: Sequence[int]
    autocast: torch.dtype | None
    respaced: Callable[[Process], Process]
    compiled: Callable[[nn.Module], Network]


class Guide:
    """An additional trained model that guidance evaluates. Each kind of guidance names the class that it needs.

    Raises UserError for a run that cannot guide the model `of`: of another kind, image size, classes or noise schedule.
    """

    def __init__(self, model: NoisedModel, wanted: GuideRun, of: DrawingModelConfig | None = None) -> None:
        self.model, self.wanted = model, wanted
        if of is not None:
            self.refuse_unfit(of)

    @abstractmethod
    def refuse_unfit(self, model: DrawingModelConfig) -> None:
        """Raises UserError if it cannot guide `model`."""

    @abstractmethod
    def prepare(self, drawn: Drawn) -> Any:
        """What guidance receives from it, an entry of `GuidanceParts.guides`."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Fields of the batch that it reads, besides those of its `conditioners`."""
        return ()

    @property
    def conditioners(self) -> ConditionerSet | None:
        """Its conditioning on the batch, None if it has none."""
        return None

    @property
    def classes(self) -> int | None:
        """The number of classes that it guides towards, None if it guides towards none."""
        return None

    @property
    def class_names(self) -> Sequence[str] | None:
        """The names of the classes, if known."""
        return None

    def check(self, batch: Batch) -> None:
        """Raises ValueError, in one line, for a batch that it cannot read."""


class ClassifierGuide(Guide):
    """A noisy classifier: log p(y | x_t) of the requested class (ADM, section 4)."""

    def refuse_unfit(self, model: DrawingModelConfig) -> None:
        check_classifier(self.wanted.run, self.model.config, model)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("label",)

    @property
    def classes(self) -> int | None:
        return self.model.config.logits

    @property
    def class_names(self) -> Sequence[str] | None:
        return self.model.config.class_names

    def check(self, batch: Batch) -> None:
        assert self.classes is not None, "refused otherwise"
        if "label" not in batch:
            raise ValueError("label is missing: the classifier guides towards a class")
        outside = [label for label in batch["label"].tolist() if not 0 <= label < self.classes]
        if outside:
            raise ValueError(f"class {outside[0]} is not in 0..{self.classes - 1}, the classes of the classifier")

    def prepare(self, drawn: Drawn) -> LogProb:
        classifier, labels = under_autocast(self.model.network, drawn.autocast), drawn.batch["label"]
        process = self.model.process

        def log_prob(x: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
            times = torch.full((len(x),), process.time_at(level), dtype=torch.float32, device=x.device)
            # Cloned, because a tensor made in inference mode cannot take part in a gradient.
            logits = classifier(process.input_at(x, level), times)
            return F.log_softmax(logits, dim=-1).gather(1, labels.clone()[:, None])[:, 0]

        return log_prob


class ReferenceGuide(Guide):
    """A network that predicts less well, or without the condition, conditioned as `guidance.reference` says."""

    def refuse_unfit(self, model: DrawingModelConfig) -> None:
        check_reference(self.wanted.run, self.model.config, model)

    @property
    def conditioners(self) -> ConditionerSet | None:
        return self.model.conditioners

    def prepare(self, drawn: Drawn) -> Denoiser:
        conditioning = self.model.conditioners.conditioning(drawn.batch, seeds=drawn.seeds)
        if cast(ReferenceConfig, self.wanted.options).conditioning == "unconditional" and conditioning is not None:
            conditioning = self.model.conditioners.null(drawn.batch, drawn.seeds)
            if conditioning is None:
                raise UserError(
                    "guidance.reference.conditioning=unconditional, but that model was trained without dropping its "
                    "condition: set guidance.reference.conditioning=conditional"
                )
        return NetworkDenoiser(drawn.compiled(self.model.network), drawn.respaced(self.model.process), conditioning)


Guides = Mapping[str, Guide]
"""The additional networks of a guidance, by the names of its configuration."""


def load_guides(guidance: GuidanceBase, model: DrawingModelConfig, load: Load) -> dict[str, Guide]:
    """Loads the networks that `guidance` names.

    Raises UserError for a run that cannot guide `model`: of another kind, image size, classes or noise schedule.
    """
    return {name: guide_of(load(wanted.run, wanted.weights), wanted, model) for name, wanted in guidance.guides.items()}


def guide_of(guide: Model, wanted: GuideRun, model: DrawingModelConfig | None = None) -> Guide:
    """Wraps a loaded model as a guide. Raises UserError if it cannot guide `model`."""
    if not isinstance(guide, NoisedModel):
        raise UserError(
            f"guidance: {wanted.run} is {guide.config.title}, and guidance needs one of noised images; train one with "
            "task=noisy_classifier, as experiment=adm/shapes32_classifier does"
        )
    return load_named(wanted.builder)(guide, wanted, model)


def check_classifier(run: str, classifier: NoisedModelConfig, model: DrawingModelConfig) -> None:
    """Raises UserError if the classifier cannot guide the model."""
    if classifier.logits is None:
        raise UserError(
            f"guidance: {run} is no noisy classifier but a diffusion model; train one with task=noisy_classifier, "
            "as experiment=adm/shapes32_classifier does"
        )
    _check_same_images(f"guidance: the classifier {run}", classifier, model)
    _check_same_levels(f"guidance: the classifier {run}", classifier, model)
    for name, conditioner in model.conditioning.items():
        if conditioner.num_classes not in (None, classifier.logits):
            raise UserError(
                f"guidance: the classifier {run} has {classifier.logits} classes, "
                f"conditioning.{name} of the model has {conditioner.num_classes}; take one trained on the same classes"
            )


def check_reference(run: str, reference: NoisedModelConfig, model: DrawingModelConfig) -> None:
    """Raises UserError if the reference network does not fit the model."""
    if not isinstance(reference, DrawingModelConfig):
        raise UserError(f"guidance.reference: {run} is {reference.title} and predicts no image; name a diffusion model")
    _check_same_images(f"guidance.reference: {run}", reference, model)
    _check_same_levels(f"guidance.reference: {run}", reference, model)
    for name, conditioner in reference.conditioning.items():
        _check_conditioner(f"guidance.reference: {run}", name, conditioner, model)


def _check_conditioner(who: str, name: str, conditioner: ConditionerConfig, model: DrawingModelConfig) -> None:
    """A reference network may be conditioned on less than the model is, but on nothing else."""
    known = [ours for ours in model.conditioning.values() if ours.kind == conditioner.kind]
    if not known:
        raise UserError(f"{who} has conditioning.{name} ({conditioner.kind}), which the model does not have")
    for key in ("classes", "size"):
        theirs, ours = getattr(conditioner, key, None), getattr(known[0], key, None)
        if theirs != ours:
            raise UserError(
                f"{who} has conditioning.{name}.{key}={theirs}, the model has {ours}; take one trained on the same data"
            )


def _check_same_images(who: str, other: NoisedModelConfig, model: NoisedModelConfig) -> None:
    if other.shape != model.shape:
        raise UserError(f"{who} takes images {list(other.shape)}, the model draws {list(model.shape)}")
    theirs, ours = (None if one.first_stage is None else one.first_stage.in_words() for one in (other, model))
    if theirs != ours:
        raise UserError(
            f"{who} looks at {_seen(theirs)}, the model diffuses {_seen(ours)}: take one with the same first stage"
        )


def _seen(first_stage: str | None) -> str:
    return "images" if first_stage is None else f"the latents of an {first_stage}"


def _check_same_levels(who: str, other: NoisedModelConfig, model: NoisedModelConfig) -> None:
    if not build_process(model.diffusion).has_same_time_as(build_process(other.diffusion)):
        raise UserError(
            f"{who} was trained on another noise schedule ({other.diffusion.levels_in_words}) than the model "
            f"({model.diffusion.levels_in_words}), "
            "so step t is another noise level to it; take one trained with the model's diffusion"
        )
