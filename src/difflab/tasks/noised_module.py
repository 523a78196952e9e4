"""The training of any network on noised images: process, timesteps, noised batches, means by noise level."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from difflab.conditioning.augmentation import Augmentation
from difflab.conditioning.base import ConditionerSet
from difflab.config.optimizer import OptimizerConfig
from difflab.data.batching import FromImages
from difflab.diffusion.base_process import Process
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.timesteps import TimestepSampler
from difflab.images import to_float
from difflab.networks.first_stage.model import FirstStage
from difflab.progress import track
from difflab.tasks.latents import TrainedLatents
from difflab.tasks.training_module import StepTerms, TrainingModule
from difflab.tasks.windows import QuartileWindow
from difflab.text.base import Tokenizer
from difflab.types import Batch

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Noised:
    """Noised samples, images or latents: x0, noise and x_t [B, C, H, W], t [B] and its importance weight [B].

    source: the random streams of the samples, for any further random numbers.
    augment_label: how each x0 was augmented [B, label_size], None without augmentation.
    """

    x0: Tensor
    noise: Tensor
    x_t: Tensor
    t: Tensor
    weight: Tensor
    source: SampleNoise
    augment_label: Tensor | None = None


class NoisedModule(TrainingModule):
    """Trains a network on x_t ~ q(x_t | x_0). Subclasses define the loss; `where` of a sample is its timestep.

    logged: names of the per-sample values in `terms`; they are also logged by quartile of the timestep.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        timesteps: TimestepSampler,
        conditioners: ConditionerSet,
        optimizer: OptimizerConfig,
        *,
        first_stage: FirstStage | None = None,
        seed: int,
        max_steps: int,
        accumulate: int = 1,
        gradient_clip: float = 0.0,
        logged: Sequence[str] = ("loss",),
    ) -> None:
        super().__init__(
            optimizer,
            seed=seed,
            max_steps=max_steps,
            accumulate=accumulate,
            gradient_clip=gradient_clip,
            window=QuartileWindow(process.time_span, logged),
            validation_window=QuartileWindow(process.time_span, logged),
        )
        self.network = network
        self.conditioners = conditioners
        self.process = process
        self.timesteps = timesteps
        self.first_stage = first_stage
        self._latents = None if first_stage is None else TrainedLatents(first_stage)
        self._seen_timesteps: list[Tensor] = []

    def batch_keys(self) -> tuple[str, ...]:
        own = (*self.conditioners.missing(["image"]), *self.conditioners.trains_with)
        return (*own, *(() if self._latents is None else self._latents.required))

    def tokenizers(self) -> Mapping[str, Tokenizer]:
        return self.conditioners.tokenizers

    def cached_fields(self) -> Mapping[str, str]:
        return {**self.conditioners.cached, **({} if self._latents is None else self._latents.cached)}

    def in_place_of_images(self) -> Collection[str]:
        if self._latents is None or "image" in (*self.conditioners.reads, *self.conditioners.stand_ins.values()):
            return ()
        return tuple(self._latents.cached)

    def made_fields(self) -> Mapping[str, FromImages]:
        return self.conditioners.made

    def refuse_encoded(self, fields: Mapping[str, str], where: str) -> None:
        if self._latents is not None:
            self._latents.refuse_others(fields, where)

    def networks(self) -> Sequence[nn.Module]:
        return (self.network,)

    def on_train_start(self) -> None:
        """Measures the scale of latents, unless it is given or was restored with the weights."""
        if self._latents is None or self.first_stage is None or self.first_stage.is_scaled:
            return
        limit = self.first_stage.config.measured_on
        batches: Any = self.trainer.datamodule.one_pass(limit)  # pyrefly: ignore
        shown = track(batches, len(batches), "measuring the latents of the training images, batches")
        self._latents.measure(shown, self.device, lambda sums: self.added_up(sums).cpu())
        scale, shift = (
            ", ".join(f"{one:.4g}" for one in values) for values in (self.first_stage.scale, self.first_stage.shift)
        )
        _log.info("latents are scaled by %s after %s is subtracted", scale, shift)

    def noised(self, batch: Batch, seeds: Sequence[int], augmentation: Augmentation | None = None) -> Noised:
        """Samples t, noise and x_t from each sample's own stream; Ho et al. (2020), algorithm 1, lines 2 to 5.

        augmentation: applied to the images first; it uses the stream after t and noise, which therefore do not change.
        """
        x0 = to_float(batch["image"]) if self._latents is None else self._latents(batch, seeds)
        source = SampleNoise(seeds, x0.device)
        t, weight = self.timesteps.sample(source.rand())
        noise = source.randn_like(x0)
        label = None
        if augmentation is not None:
            x0, label = augmentation(x0, source)
        return Noised(x0, noise, self.process.q_sample(x0, t, noise), t, weight, source, label)

    # -- loss-aware timesteps -----------------------------------------------------------------------------------------

    def observe(self, terms: StepTerms) -> None:
        if self.timesteps.learns:
            assert terms.where is not None, "where is the timestep"
            self._seen_timesteps.append(torch.stack([terms.where.double(), terms.values["loss"].detach().double()]))

    def on_optimized(self) -> None:
        """Updates loss-aware sampling with the losses of all ranks and parts at once, so that all ranks agree."""
        if self.timesteps.learns:
            for seen in self._seen_timesteps:
                gathered = self.all_gather(seen)
                assert isinstance(gathered, Tensor)
                flat = gathered.movedim(-2, 0).reshape(2, -1)
                flat = flat[:, torch.isfinite(flat[1])]
                self.timesteps.update(flat[0].long(), flat[1])
            self._seen_timesteps.clear()

    def task_state(self) -> dict[str, Any]:
        return {"timesteps": self.timesteps.state_dict()} if self.timesteps.learns else {}

    def load_task_state(self, state: dict[str, Any]) -> None:
        if self.timesteps.learns:
            self.timesteps.load_state_dict(state["timesteps"])
