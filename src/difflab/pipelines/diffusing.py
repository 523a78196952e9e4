"""The diffusion stage: one trained model with its sampler and guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.compiling import Compilation
from difflab.conditioning.base import ConditionerSet
from difflab.conditioning.low_resolution import LowResolution
from difflab.config.editing import EditingConfig
from difflab.config.guidance import GuidanceBase
from difflab.config.sampler import SamplerConfig
from difflab.data.masks import HoleMasks
from difflab.diffusion.base_process import Process
from difflab.diffusion.build import build_guidance, build_sampler, build_threshold
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.guidance.base import GuidanceParts
from difflab.diffusion.known_region import KnownRegion
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.samplers.part import Part
from difflab.errors import UserError, user_errors
from difflab.networks.first_stage.model import FirstStage
from difflab.networks.mode import evaluating
from difflab.pipelines.base import Takes
from difflab.pipelines.editing import Editing
from difflab.pipelines.finite import FiniteWatch, refuse_non_finite, refuse_undecodable
from difflab.pipelines.guides import Drawn, Guides
from difflab.pipelines.handover import FIELD as UNFINISHED
from difflab.pipelines.handover import Unfinished
from difflab.requests.captions import NEGATIVE
from difflab.seeding import sample_seeds
from difflab.types import Batch, Conditioning, NoiseLevel, StepContext, StepHook

DROPPED_CLASSES = ("conditioning=class", "conditioning.class_label.drop_rate=0.1")
"""How a model without conditions is trained for classifier-free guidance."""


class DiffusingStage:
    """Samples images from one model. Sample i of seed s has the same noise in any batch.

    shape: of one image, (C, H, W).
    first_stage: what decodes samples, which are latents, as images; None if they are images.
    guides: the additional networks that `guidance` evaluates.
    editing: where sampling begins and ends, and how a given image is used.
    class_names: the names of the classes, if known.
    autocast: dtype of the networks' arithmetic, None for full precision; the sampler always works in float32.
    compilation: which networks are compiled, None for none; a guiding classifier never is.

    Raises UserError for steps that the schedule lacks, and for a guidance that the model does not support.
    """

    def __init__(
        self,
        network: nn.Module,
        conditioners: ConditionerSet,
        process: Process,
        shape: tuple[int, ...],
        *,
        sampler: SamplerConfig,
        guidance: GuidanceBase,
        first_stage: FirstStage | None = None,
        guides: Guides | None = None,
        editing: Editing | None = None,
        class_names: Sequence[str] | None = None,
        autocast: torch.dtype | None = None,
        compilation: Compilation | None = None,
    ) -> None:
        self.network = network
        self.conditioners = conditioners
        self.shape = shape
        self.first_stage = first_stage
        self._noised_shape = shape if first_stage is None else first_stage.config.latent_shape(*shape[1:])
        self.guidance = guidance
        self.guides = dict(guides or {})
        self.editing = editing or Editing(EditingConfig())
        if "mask" in conditioners.reads:
            self.editing = replace(self.editing, masked=True, shown=True)
        self.class_names = class_names
        self.sampler_config = sampler
        self.trained_process = process
        with user_errors("sampler"):
            self.sampler = build_sampler(sampler)
            self.process = self.sampler.respace(process)
            self.n_steps = self.sampler.n_steps(self.process, self.editing.steps)
            self.begins_at, self.ends_at = self._first_and_last_level()
        with user_errors():
            self._threshold = build_threshold(guidance, latents=first_stage is not None)
        self.autocast = autocast
        self.compilation = compilation or Compilation()
        self._check_guidance()
        self._check_size()

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _first_and_last_level(self) -> tuple[NoiseLevel | None, NoiseLevel | None]:
        levels = self.sampler.levels(self.process)
        steps = [StepContext(i, len(levels) - 1, *both) for i, both in enumerate(pairwise(levels))]
        first, last = self.editing.steps.bounds(steps)
        return (
            None if self.editing.continued is None else levels[first],
            levels[last] if self.editing.end else None,
        )

    @property
    def decodes(self) -> bool:
        return self.first_stage is not None

    @property
    def takes(self) -> Takes:
        if self.editing.continued is not None:
            return "noise"
        if "low_res" in self.conditioners.sizes:
            return "low_res"
        return "image" if "low_res" in self.editing.reads else "nothing"

    # -- what it reads --------------------------------------------------------------------------------------------

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields of the conditioners, of the guides, and the image to edit."""
        fields = [field for part in self._conditioned() for field in part.reads]
        led = [field for guide in self.guides.values() for field in guide.reads]
        return tuple(dict.fromkeys([*fields, *led, *self.editing.reads]))

    @property
    def stand_ins(self) -> dict[str, str]:
        return {field: other for part in self._conditioned() for field, other in part.stand_ins.items()}

    @property
    def optional(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(field for part in self._conditioned() for field in part.optional))

    @property
    def sizes(self) -> dict[str, int]:
        read = {field: size for part in self._conditioned() for field, size in part.sizes.items()}
        return {"image": self.shape[-1], "mask": self.shape[-1], **read}

    @property
    def classes(self) -> int | None:
        """The number of classes: the model's, else the guiding classifier's."""
        counted = [self.conditioners.classes, *(guide.classes for guide in self.guides.values())]
        return next((count for count in counted if count is not None), None)

    @property
    def masks(self) -> HoleMasks | None:
        return self.conditioners.masks

    @property
    def low_resolution(self) -> LowResolution | None:
        return self.conditioners.low_resolution

    def check(self, batch: Batch) -> None:
        """Raises ValueError, in one line, for a batch that the conditioners cannot read."""
        if NEGATIVE in batch and not self.guidance.needs_null:
            raise ValueError(
                "negative_prompts: nothing leads away from them without classifier-free guidance; set "
                "guidance=classifier_free and guidance.scale above 1, or leave them out"
            )
        for part in self._conditioned():
            part.check(batch)
        self.editing.check(batch)
        for guide in self.guides.values():
            guide.check(batch)

    def _conditioned(self) -> list[ConditionerSet]:
        guides = [guide.conditioners for guide in self.guides.values()]
        return [self.conditioners, *(one for one in guides if one is not None)]

    # -- sampling -------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def __call__(self, batch: Batch, seed: int, hook: StepHook | None = None) -> Batch:
        """Returns the batch with `image`, float32 [B, C, H, W] on the model's device, nominally in [-1, 1]; or, if the
        stage ends at a noise level, with the field of `difflab.pipelines.handover`.

        Raises NonFiniteSamplesError if a sample is NaN or infinite.
        """
        indices = batch["index"].tolist()
        left: Unfinished | None = batch[UNFINISHED] if self.editing.continued is not None else None
        seeds = sample_seeds(seed, indices) if left is None else left.seeds
        on_device = {key: v.to(self.device) if isinstance(v, Tensor) else v for key, v in batch.items()}
        with evaluating(self.network, self.conditioners):
            noise, start = self._start(seeds, left)
            watch = FiniteWatch(self._threshold)
            # Once, as it may take its time; a guide makes its own, for it may have been trained with another.
            told = self.conditioners.complete(on_device, seeds)
            conditioning = self.conditioners.conditioning(told, seeds=seeds)
            self._check_beside(conditioning)
            denoiser = NetworkDenoiser(
                self.compilation.network(self.network, self.autocast, rows=len(indices), calls=self._calls()),
                self.process,
                conditioning,
                guidance=build_guidance(self.guidance, self._parts(on_device, told, seeds)),
                threshold=watch.threshold,
                rederive_eps=self.guidance.rederive_eps,
                one_batch=self.guidance.one_batch,
            )
            with user_errors():
                part = self._noised_part(self.editing.part(on_device))
                x = self.sampler(watch.denoiser(denoiser), self.process, start, noise, hook, part)
            refuse_non_finite(
                watch,
                x,
                indices=indices,
                n_steps=self.n_steps,
                parts=self._networks(),
                guidance=self.guidance,
                autocast=self.autocast,
            )
            if self.ends_at is not None:
                return {**batch, UNFINISHED: Unfinished(x, self.ends_at, noise, seeds)}
            images = self.images_of(x)
            if self.first_stage is not None:
                # What is not decoded was looked at already.
                refuse_undecodable(images, indices, self._networks())
            return {**batch, "image": images}

    @torch.inference_mode()
    def images_of(self, x0: Tensor) -> Tensor:
        """The images [B, C, H, W] of samples, or of predictions of them: decoded latents, or they themselves."""
        return x0 if self.first_stage is None else self.first_stage.decode(x0.to(self.device))

    def _noised_part(self, part: Part | None) -> Part | None:
        """The part with latents in place of images; a place of a latent is known if all its pixels are."""
        if self.first_stage is None or part is None:
            return part
        image, region = part.image, part.region
        if region is not None:
            anew = F.adaptive_max_pool2d(region.mask.float(), self._noised_shape[1:]) > 0
            region = KnownRegion(self.first_stage.encode(region.image), anew, region.replaced)
        return replace(part, image=None if image is None else self.first_stage.encode(image), region=region)

    def _start(self, seeds: Sequence[int], left: Unfinished | None) -> tuple[SampleNoise, Tensor]:
        """The samples' random streams, and the x from which the sampler starts."""
        if left is None:
            noise = SampleNoise(seeds, self.device)
            return noise, noise.randn(self._noised_shape) * self.sampler.starting_std(self.process)
        assert self.begins_at is not None, "it continues"
        return left.noise, left.at(self.begins_at).to(self.device)

    def _calls(self) -> int:
        """The least number of network evaluations per sample."""
        return self.n_steps * self.sampler.calls_a_step * self.guidance.calls

    def record(self) -> dict[str, Any]:
        """The sampler and the guidance; under `pipeline` how an image is used, and whether captions are shortened."""
        record: dict[str, Any] = {
            "sampler": self.sampler_config.model_dump(mode="json"),
            "guidance": self.guidance.recorded(),
        }
        used = self.editing.record()
        for tokenizer in self.conditioners.tokenizers.values():
            if tokenizer.too_long != tokenizer.trained_too_long:
                used["too_long"] = tokenizer.too_long
        return {**record, "pipeline": used} if used else record

    def known(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """The kept pixels, as `Editing.known` returns them; None if the whole image is generated."""
        return self.editing.known(batch)

    def _networks(self) -> list[tuple[str, nn.Module]]:
        """Every network involved, by its name in messages."""
        parts: list[tuple[str, nn.Module]] = [("network", self.network), ("conditioners", self.conditioners)]
        if self.first_stage is not None:
            parts.append(("first_stage", self.first_stage.network))
        return parts + [(f"guidance {name}", guide.model.as_module()) for name, guide in self.guides.items()]

    def _check_size(self) -> None:
        height, width = self.shape[1:]
        reads = [field for field in self.reads if field in ("image", "mask", "low_res")]
        if height != width and reads:
            raise UserError(f"size=[{height},{width}]: this drawing reads {reads[0]}, which is square: give one number")

    def _check_beside(self, conditioning: Conditioning | None) -> None:
        """Raises UserError if what stands beside the network's input is for images of another size."""
        if conditioning is None or conditioning.concat is None:
            return
        height, width = conditioning.concat.shape[-2:]
        if (height, width) != self._noised_shape[1:]:
            factor = self.shape[-1] // self._noised_shape[-1]
            names = ", ".join(name for name, one in self.conditioners.named() if "concat" in one.makes)
            raise UserError(
                f"{names}: the condition is for images of {width * factor}x{height * factor} pixels, and "
                f"{self.shape[-1]}x{self.shape[-2]} are drawn: give one of the same size, or another size="
            )

    # -- guidance -------------------------------------------------------------------------------------------------

    def _check_guidance(self) -> None:
        droppable = any(conditioner.drop_rate > 0 for _, conditioner in self.conditioners.named())
        if self.guidance.needs_null and not droppable:
            names = [name for name, one in self.conditioners.named() if one.augmentation is None]
            why = "was trained without dropping its condition" if names else "is unconditional"
            dropping = [f"conditioning.{names[0]}.drop_rate=0.1"] if names else DROPPED_CLASSES
            raise UserError(
                f"guidance: this model {why}, so classifier-free guidance has no unconditional prediction: train with "
                f"{' '.join(dropping)}, or guide with another network, guidance=autoguidance "
                "guidance.reference.run=..."
            )
        assert self.guides.keys() == self.guidance.guides.keys(), "load_guides loads what the guidance names"

    def _parts(self, batch: Batch, told: Batch, seeds: Sequence[int]) -> GuidanceParts:
        """The networks' side of guidance for one batch; told: the same as this model completes it."""
        drawn = Drawn(
            batch,
            seeds,
            self.autocast,
            self.sampler.respace,
            lambda network: self.compilation.network(network, self.autocast, rows=len(seeds), calls=self.n_steps),
        )
        return GuidanceParts(
            null=self.conditioners.null(told, seeds),
            prediction=self.process.prediction,
            guides={name: guide.prepare(drawn) for name, guide in self.guides.items()},
        )
