"""The base of all training modules: losses, running means and checkpoints, on top of the step in `stepping`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from difflab.config.optimizer import OptimizerConfig
from difflab.data.batching import FromImages
from difflab.parts.selection import HasTrainingOnly, training_only_places
from difflab.seeding import stream_seed
from difflab.tasks.stepping import SteppingModule
from difflab.tasks.windows import MeanWindow
from difflab.text.base import Tokenizer
from difflab.types import Batch


@dataclass(frozen=True)
class StepTerms:
    """Loss and logged values of one part of a batch: a scalar loss, and values per sample.

    values: [B] each, by the name they are logged under; `loss` is always there.
    where: [B], the position by which the task's windows group the samples.
    """

    minimised: Tensor
    values: dict[str, Tensor]
    where: Tensor | None = None


class TrainingModule(SteppingModule, HasTrainingOnly):
    """One or more networks in training. Subclasses define the loss (`terms`); those that have several optimizers, or
    split their batch differently, also define the step (`optimized`, `optimize`).

    window, validation_window: of the values in `terms`, in training and in validation.
    plugins: the third-party packages behind its parts, which checkpoints record.
    """

    def __init__(
        self,
        optimizer: OptimizerConfig,
        *,
        seed: int,
        max_steps: int,
        window: MeanWindow,
        validation_window: MeanWindow,
        accumulate: int = 1,
        gradient_clip: float = 0.0,
    ) -> None:
        super().__init__(optimizer, seed=seed, max_steps=max_steps, accumulate=accumulate, gradient_clip=gradient_clip)
        self.window = window
        self.plugins: dict[str, Any] = {}
        self._validation = validation_window

    # -- the step -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        """The loss of samples whose randomness comes from `seeds`; nothing is dropped if `training` is False."""

    def batch_keys(self) -> tuple[str, ...]:
        """The fields that the loader has to provide besides images."""
        return ()

    def tokenizers(self) -> Mapping[str, Tokenizer]:
        """The tokenizers with which the loader tokenizes captions, by the field of a batch that holds the ids."""
        return {}

    @property
    def empty_captions(self) -> bool:
        """Whether a caption may be empty; otherwise such a sample counts as unreadable."""
        return True

    @property
    def compares_samples(self) -> bool:
        """Whether the loss of a sample depends on the others of its batch; then validation has batches as large as
        training, however many parts those have."""
        return False

    def cached_fields(self) -> Mapping[str, str]:
        """The fields that the loader provides if the data set has them: the states of frozen encoders, with the hash of
        the encoder of each."""
        return {}

    def in_place_of_images(self) -> Collection[str]:
        """Those of the cached fields with which the images themselves are not needed."""
        return ()

    def made_fields(self) -> Mapping[str, FromImages]:
        """The fields that the loader makes of the training images at random, in its processes."""
        return {}

    def refuse_encoded(self, fields: Mapping[str, str], where: str) -> None:
        """Raises UserError if a data set has fields that this task would have to ignore without a word.

        fields: what encoders added to the data set, {name: encoder in words}. where: the data set.
        """

    def networks(self) -> Sequence[nn.Module]:
        """The networks that dominate a step: compiled, and converted to the device's memory format, if requested."""
        return ()

    def observe(self, terms: StepTerms) -> None:
        """Called with every part of a training batch."""

    def optimize(self, batch: Batch) -> Tensor:
        """The step of a task with one optimizer, which minimizes the mean of `terms` over the parts of a batch."""
        losses: list[Tensor] = []
        for part in self.parts(batch):
            terms = self.terms(part.batch, part.seeds, training=True)
            self.record(terms)
            self.add_gradients(terms.minimised, part)
            losses.append(terms.minimised.detach())
        self.update()
        return torch.stack(losses).mean()

    def record(self, terms: StepTerms) -> None:
        """Adds the values of samples to the logged means."""
        values = {name: value.detach() for name, value in terms.values.items()}
        self.observe(terms)
        self.window.add(values, terms.where, torch.isfinite(values["loss"]))

    # -- validation and means -----------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Computes the terms of held-out samples, whose noise and timesteps never change; padding is excluded."""
        terms = self.terms(batch, [stream_seed(self.seed, "val", i) for i in batch["index"].tolist()], training=False)
        self._validation.add(terms.values, terms.where, batch["weight"].to(self.device))

    def on_validation_epoch_start(self) -> None:
        self._validation.pop()

    def validation_means(self) -> dict[str, float]:
        """Means over the validation samples of all ranks since the last validation began, as `val/<name>`."""
        return self._validation.means(self._over_all_ranks(self._validation), "val")

    def training_means(self) -> dict[str, float]:
        """Means over the training samples of all ranks since this was last called, as `train/<name>`."""
        sums = self._over_all_ranks(self.window)
        self.window.pop()
        return self.window.means(sums, "train")

    def _over_all_ranks(self, window: MeanWindow) -> Tensor:
        return self.added_up(window.sums())

    def added_up(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, on the device; the tensor itself stays."""
        total = self.trainer.strategy.reduce(values.to(self.device, copy=True), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Called on every rank; the first writes the file, so it needs the losses of all.
        state: dict[str, Any] = {
            "train_step": self.train_step,
            "train_images": self.train_images,
            "loss_window": self._over_all_ranks(self.window).cpu(),
            # Lightning keeps the states of the optimizers in a list.
            "optimizers": {name: list(parameters) for name, parameters in self.trained_by().items()},
            "training_only": training_only_places(self),
            "plugins": self.plugins,
        }
        checkpoint["difflab"] = {**state, **self.task_state()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["difflab"]
        self.train_step = state["train_step"]
        self.train_images = state["train_images"]
        if self.global_rank == 0:
            self.window.restore(state["loss_window"])
        self.load_task_state(state)

    def task_state(self) -> dict[str, Any]:
        """The task's state in a checkpoint besides its parameters; the same on all ranks."""
        return {}

    def load_task_state(self, state: dict[str, Any]) -> None:
        """Restores the `task_state` contained in `state`."""
