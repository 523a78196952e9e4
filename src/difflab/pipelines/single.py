"""One trained model put together for sampling: network, conditioners, sampler and guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.conditioning.base import ConditionerSet
from difflab.conditioning.class_label import ClassConditioner
from difflab.conditioning.low_res import LowResConditioner
from difflab.config.guidance import GuidanceConfig
from difflab.config.network import UNetEncoderConfig
from difflab.config.sampler import SamplerConfig
from difflab.devices import under_autocast
from difflab.diffusion.base_process import Process
from difflab.diffusion.build import build_guidance, build_sampler, build_threshold
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.guidance import GuidanceParts, LogProb
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.parametrisation import nearest_view
from difflab.diffusion.process import GaussianProcess, Prediction
from difflab.errors import UserError, user_errors
from difflab.images import Rounding, to_uint8
from difflab.pipelines.finite import FiniteWatch, refuse_non_finite
from difflab.pipelines.guides import Guides
from difflab.pipelines.low_res import LowRes
from difflab.seeding import stream_seed
from difflab.types import Batch, Denoiser, NoiseLevel, StepHook


class SinglePipeline:
    """Draws samples of one model. Sample i of seed s has the same noise whatever the batch it is drawn in.

    shape: of one sample, (C, H, W).
    guides: the further networks that `guidance` asks.
    low_res: where an upsampler's low-resolution images come from when `draw` is given none.
    autocast: dtype of the networks' arithmetic, None for full precision; the sampler always works in float32.

    Raises UserError for steps that the schedule has not, and for a guidance that the model cannot have.
    """

    def __init__(
        self,
        network: nn.Module,
        conditioners: ConditionerSet,
        process: Process,
        shape: tuple[int, ...],
        *,
        sampler: SamplerConfig,
        guidance: GuidanceConfig,
        guides: Guides | None = None,
        low_res: LowRes | None = None,
        rounding: Rounding = "truncate",
        autocast: torch.dtype | None = None,
    ) -> None:
        self.network = network
        self.conditioners = conditioners
        self.shape = shape
        self.guidance = guidance
        self.guides = guides or Guides()
        self.low_res = low_res
        self.sampler_config = sampler
        with user_errors("sampler"):
            self.sampler = build_sampler(sampler)
            self.process = self.sampler.respace(process)
        self.rounding: Rounding = rounding
        self.autocast = autocast
        self._check_guidance()

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def n_steps(self) -> int:
        return self.sampler.n_steps(self.process)

    @torch.inference_mode()
    def draw(
        self,
        indices: Sequence[int],
        seed: int,
        *,
        classes: Sequence[int] | None = None,
        low_res: Tensor | None = None,
        hook: StepHook | None = None,
    ) -> Tensor:
        """float32 [len(indices), C, H, W], nominally in [-1, 1], on the model's device.

        classes: one per sample; those of `labels` when None.
        low_res: what an upsampler enlarges, uint8 or float [len(indices), C, h, w]; its own source when None.

        Raises NonFiniteSamplesError where a sample is NaN or infinite.
        """
        training = self.network.training
        self.network.eval()
        try:
            noise = SampleNoise([stream_seed(seed, "sample", i) for i in indices], self.device)
            start = noise.randn(self.shape) * self.sampler.starting_std(self.process)
            batch = self._asked_for(indices, seed, classes, low_res)
            watch = FiniteWatch(build_threshold(self.guidance))
            denoiser = NetworkDenoiser(
                under_autocast(self.network, self.autocast),
                self.process,
                self.conditioners.conditioning(batch),
                guidance=build_guidance(self.guidance, self._parts(batch)),
                threshold=watch.threshold,
                rederive_eps=self.guidance.rederive_eps,
                one_batch=self.guidance.one_batch,
            )
            x = self.sampler(watch.denoiser(denoiser), self.process, start, noise, hook)
            refuse_non_finite(
                watch,
                x,
                indices=indices,
                n_steps=self.n_steps,
                parts=self._networks(),
                guidance=self.guidance,
                autocast=self.autocast,
            )
            return x
        finally:
            self.network.train(training)

    def __call__(
        self,
        indices: Sequence[int],
        seed: int,
        classes: Sequence[int] | None = None,
        *,
        low_res: Tensor | None = None,
    ) -> Tensor:
        """The same as uint8 [len(indices), C, H, W]."""
        return to_uint8(self.draw(indices, seed, classes=classes, low_res=low_res), self.rounding)

    def labels(self, indices: Sequence[int], seed: int) -> list[int] | None:
        """The classes that `draw` takes when it is given none; None where neither model nor classifier has classes.

        An upsampler takes those of its low-resolution images where they are known; others come from (seed, index).
        """
        classes = self.class_count()
        if classes is None:
            return None
        known = None if self.low_res is None else self.low_res.labels(indices)
        if known is not None:
            self.check_classes(known)
            return known
        return [stream_seed(seed, "class", i) % classes for i in indices]

    def check_classes(self, classes: Sequence[int]) -> None:
        """Raises UserError for classes that this model does not have."""
        count = self.class_count()
        if count is None:
            raise UserError("this model has no classes: leave classes=null")
        wrong = next((label for label in classes if not 0 <= label < count), None)
        if wrong is not None:
            raise UserError(f"class {wrong} is not in 0..{count - 1}, the classes of this model")

    def record(self) -> dict[str, Any]:
        """The sampler, the guidance, and what an upsampler enlarges."""
        record: dict[str, Any] = {
            "sampler": self.sampler_config.model_dump(mode="json"),
            "guidance": recorded(self.guidance),
        }
        return record if self.low_res is None else {**record, "pipeline": {"low_res": self.low_res.name}}

    def class_count(self) -> int | None:
        """How many classes samples may be asked to show: the model's, else those of the classifier that guides it."""
        own = next((c.classes for _, c in self.conditioners.named() if isinstance(c, ClassConditioner)), None)
        if own is None and self.guides.classifier is not None:
            network = self.guides.classifier.config.network
            assert isinstance(network, UNetEncoderConfig), "load_guides takes nothing else as a classifier"
            return network.classes
        return own

    def enlarges(self) -> LowResConditioner | None:
        """The conditioner that makes this an upsampler, or None."""
        return next((c for _, c in self.conditioners.named() if isinstance(c, LowResConditioner)), None)

    def _networks(self) -> list[tuple[str, nn.Module]]:
        """Every network that takes part, by the name that it has in a message."""
        parts: list[tuple[str, nn.Module]] = [("network", self.network), ("conditioners", self.conditioners)]
        for name, guide in (("classifier", self.guides.classifier), ("reference", self.guides.reference)):
            parts += [] if guide is None else [(f"guidance {name}", guide.as_module())]
        return parts

    # -- what the samples are asked to show -----------------------------------------------------------------------

    def _asked_for(
        self, indices: Sequence[int], seed: int, classes: Sequence[int] | None, low_res: Tensor | None
    ) -> Batch:
        """The batch that the conditioners read."""
        if classes is not None:
            self.check_classes(classes)
        labels = self.labels(indices, seed) if classes is None else list(classes)
        batch: Batch = {"index": torch.tensor(list(indices), device=self.device)}
        if labels is not None:
            batch["label"] = torch.tensor(labels, device=self.device)
        upsampler = self.enlarges()
        if upsampler is None:
            return batch
        if low_res is not None:
            images: Batch = {"low_res": low_res}
        elif self.low_res is not None:
            images = self.low_res(indices)
        else:
            raise UserError(f"this model enlarges {upsampler.size}x{upsampler.size} images: give them as low_res=...")
        return {**batch, **{key: value.to(self.device) for key, value in images.items()}}

    # -- guidance -------------------------------------------------------------------------------------------------

    def _check_guidance(self) -> None:
        free, classifier = self.guidance.classifier_free_options(), self.guidance.classifier_options()
        droppable = any(conditioner.drop_rate > 0 for _, conditioner in self.conditioners.named())
        if free is not None and free.effective_scale != 1.0 and free.reference is None and not droppable:
            told = "was trained with its condition always there" if len(self.conditioners) else "is unconditional"
            raise UserError(
                f"guidance: this model {told}, so classifier-free guidance has nothing to lead away from: train with "
                "conditioning.class_label.drop_rate=0.1, or lead away from another network, guidance=autoguidance "
                "guidance.reference.run=..."
            )
        assert classifier is None or self.guides.classifier is not None, "load_guides loads what the guidance names"

    def _parts(self, batch: Batch) -> GuidanceParts:
        """What guidance needs of the networks for one batch."""
        return GuidanceParts(
            null=self.conditioners.null(batch),
            prediction=self._guided_view(),
            reference=self._reference(batch),
            log_prob=self._log_prob(batch),
        )

    def _guided_view(self) -> Prediction:
        """The space that guidance is rescaled in: what the network regresses, or the view closest to it."""
        if isinstance(self.process, GaussianProcess):
            return self.process.prediction
        return nearest_view(self.process.parametrisation)

    def _reference(self, batch: Batch) -> Denoiser | None:
        """The reference network as a denoiser on the sampler's steps, told what `guidance.reference` says."""
        model, options = self.guides.reference, self.guidance.classifier_free_options()
        if model is None or options is None or options.reference is None:
            return None
        told = model.conditioners.conditioning(batch)
        if options.reference.told == "nothing" and told is not None:
            told = model.conditioners.null(batch)
            if told is None:
                raise UserError(
                    "guidance.reference.told=nothing, but that model was trained with its condition always there: "
                    "set guidance.reference.told=condition"
                )
        return NetworkDenoiser(under_autocast(model.network, self.autocast), self.sampler.respace(model.process), told)

    def _log_prob(self, batch: Batch) -> LogProb | None:
        """log p(y | x_t) of the class asked for, by the noisy classifier (ADM, section 4)."""
        model = self.guides.classifier
        if model is None:
            return None
        classifier, process, labels = under_autocast(model.network, self.autocast), model.process, batch["label"]

        def log_prob(x: Tensor, level: NoiseLevel) -> Tensor:
            times = torch.full((len(x),), process.time_at(level), dtype=torch.float32, device=x.device)
            # Cloned, because what inference mode made cannot be part of a gradient.
            logits = classifier(process.input_at(x, level), times)
            return F.log_softmax(logits, dim=-1).gather(1, labels.clone()[:, None])[:, 0]

        return log_prob


def recorded(guidance: GuidanceConfig) -> dict[str, Any]:
    """A guidance as it changes pictures: the scale in both conventions, whichever was given; not how it is batched."""
    plain = guidance.model_dump(mode="json", exclude={"one_batch"})
    free = guidance.classifier_free_options()
    if free is not None:
        section = plain if guidance.kind == "classifier_free" else plain["classifier_free"]
        section |= {"scale": free.effective_scale, "paper_w": free.effective_scale - 1.0}
    return plain
