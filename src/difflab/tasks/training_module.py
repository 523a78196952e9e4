"""What all that is trained shares: clock, seeds, optimizer, running means, checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from difflab.config.optimizer import OptimizerConfig
from difflab.optimizer import build_optimizer, learning_rate_factor
from difflab.seeding import stream_seed
from difflab.tasks.windows import MeanWindow
from difflab.types import Batch


@dataclass(frozen=True)
class StepTerms:
    """One part of a batch: what is minimised (a scalar), and what is logged of each sample.

    values: [B] each, by the name they are logged under; `loss` is always there.
    where: [B], what the windows of the task split their means by.
    """

    minimised: Tensor
    values: dict[str, Tensor]
    where: Tensor | None = None


class TrainingModule(L.LightningModule):
    """One or more networks in training. Subclasses say what is minimised; see `terms`.

    window, validation_window: of the values that `terms` gives, in training and in validation.
    train_step:   optimised batches so far, the clock of everything that is logged, saved and averaged.
    train_images: images so far, over all ranks.
    What is drawn for a sample is a function of (seed, train_step, its position in the global batch), whatever the
    number of ranks, workers and accumulation parts.
    """

    def __init__(
        self,
        optimizer: OptimizerConfig,
        *,
        seed: int,
        max_steps: int,
        window: MeanWindow,
        validation_window: MeanWindow,
    ) -> None:
        super().__init__()
        self.optimizer_config = optimizer
        self.seed = seed
        self.max_steps = max_steps
        self.train_step = 0
        self.train_images = 0
        self.window = window
        self.step_skipped = False  # set by the non-finite guard between backward and the optimizer
        self._validation = validation_window
        self._part = 0
        self._images_of_step = 0
        self.grad_norm: Tensor | None = None

    # -- the step -------------------------------------------------------------------------------------------------

    @abstractmethod
    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        """The loss of samples whose randomness is that of `seeds`; nothing is dropped where `training` is False."""

    def batch_keys(self) -> tuple[str, ...]:
        """What the loader has to deliver besides images."""
        return ()

    def networks(self) -> Sequence[nn.Module]:
        """What takes the time of a step: compiled, and in the memory layout of the device, where that is asked for."""
        return ()

    def observe(self, terms: StepTerms) -> None:
        """Told of every part of a training batch."""

    def on_optimized(self) -> None:
        """Told after every step of the optimizer."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one part of a global batch."""
        part_size = len(batch["position"]) * self.trainer.world_size
        position = (batch["position"] + self._part * part_size).tolist()
        self._images_of_step += part_size
        self._part += 1
        # Dropout draws from the global stream: tie it to the step, so that no state of it has to be stored.
        seed = stream_seed(self.seed, "dropout", self.train_step, self._part, self.global_rank)
        _seed_global_stream(self.device, seed)
        seeds = [stream_seed(self.seed, "train", self.train_step, p) for p in position]
        terms = self.terms(batch, seeds, training=True)
        values = {name: value.detach() for name, value in terms.values.items()}
        self.observe(terms)
        self.window.add(values, terms.where, torch.isfinite(values["loss"]))
        return terms.minimised

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on held-out samples, whose noise and timesteps never change; padding counts nothing."""
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
        sums = self.trainer.strategy.reduce(window.sums().to(self.device, copy=True), reduce_op="sum")
        assert isinstance(sums, Tensor)
        return sums

    # -- the clock and the optimizer --------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # A fused optimizer takes the loss scale out of the gradients itself, which is after they were clipped.
        return build_optimizer(self.optimizer_config, self.parameters(), fused=self.trainer.precision != "16-mixed")

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        factor = learning_rate_factor(self.optimizer_config.schedule, self.train_step, self.max_steps)
        for group in optimizer.param_groups:
            group["lr"] = self.optimizer_config.lr * factor
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.on_optimized()
        if not self.step_skipped:
            self.train_step += 1
            self.train_images += self._images_of_step
        self._part = self._images_of_step = 0

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the global norm and keep it for the log."""
        limit = gradient_clip_val or float("inf")
        self.grad_norm = nn.utils.clip_grad_norm_(self.parameters(), limit)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Every rank comes here; the file is the first one's, so it gets the losses of all.
        state: dict[str, Any] = {
            "train_step": self.train_step,
            "train_images": self.train_images,
            "loss_window": self._over_all_ranks(self.window).cpu(),
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
        """What a task keeps in a checkpoint besides its parameters; alike on all ranks."""
        return {}

    def load_task_state(self, state: dict[str, Any]) -> None:
        """Go on from the `task_state` that is among `state`."""


def _seed_global_stream(device: torch.device, seed: int) -> None:
    # torch.manual_seed formats the call stack once for each kind of device that is not in use, at every call.
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
