"""What every network that learns from noised images shares: clock, draws, optimizer, running means, checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from difflab.conditioning.base import ConditionerSet
from difflab.config.optimizer import OptimizerConfig
from difflab.data.augmentation import Augmentation
from difflab.diffusion.base_process import Process
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.timesteps import LossAwareTimesteps, TimestepSampler
from difflab.images import to_float
from difflab.optimizer import build_optimizer, learning_rate_factor
from difflab.seeding import stream_seed
from difflab.tasks.windows import QuartileWindow
from difflab.types import Batch


@dataclass(frozen=True)
class Noised:
    """Samples on their way to the network: x0, noise and x_t [B, C, H, W], t [B] and its importance weight [B].

    source: the random streams of the samples, for whatever else is drawn.
    augment_label: how each x0 was augmented [B, label_size], None where nothing augments.
    """

    x0: Tensor
    noise: Tensor
    x_t: Tensor
    t: Tensor
    weight: Tensor
    source: SampleNoise
    augment_label: Tensor | None = None


@dataclass(frozen=True)
class StepTerms:
    """One part of a batch: what is minimised (a scalar), and what is logged of each sample.

    values: [B] each, by the name they are logged under; `loss` is always there.
    """

    minimised: Tensor
    values: dict[str, Tensor]
    t: Tensor


class TrainingModule(L.LightningModule):
    """A network trained on x_t ~ q(x_t | x_0). Subclasses say what is minimised; see `terms`.

    logged:       names of the per-sample values that `terms` gives.
    train_step:   optimised batches so far, the clock of everything that is logged, saved and averaged.
    train_images: images so far, over all ranks.
    Noise, timesteps and condition drops of a sample are functions of (seed, train_step, its position in the global
    batch), whatever the number of ranks, workers and accumulation parts.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        timesteps: TimestepSampler,
        conditioners: ConditionerSet,
        optimizer: OptimizerConfig,
        *,
        seed: int,
        max_steps: int,
        logged: Sequence[str] = ("loss",),
    ) -> None:
        super().__init__()
        self.network = network
        self.conditioners = conditioners
        self.process = process
        self.timesteps = timesteps
        self.optimizer_config = optimizer
        self.seed = seed
        self.max_steps = max_steps
        self.train_step = 0
        self.train_images = 0
        self.window = QuartileWindow(process.time_span, logged)
        self.step_skipped = False  # set by the non-finite guard between backward and the optimizer
        self._validation = QuartileWindow(process.time_span, logged)
        self._part = 0
        self._images_of_step = 0
        self._seen_timesteps: list[Tensor] = []
        self.grad_norm: Tensor | None = None

    # -- the step -------------------------------------------------------------------------------------------------

    @abstractmethod
    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        """The loss of samples whose randomness is that of `seeds`; nothing is dropped where `training` is False."""

    def batch_keys(self) -> tuple[str, ...]:
        """What the loader has to deliver besides images."""
        return self.conditioners.missing(["image"])

    def noised(self, batch: Batch, seeds: Sequence[int], augmentation: Augmentation | None = None) -> Noised:
        """t, noise and x_t of each sample from its own stream; Ho et al. (2020), algorithm 1, lines 2 to 5.

        augmentation: what changes the images before; it draws after t and noise, so that both stay what they were.
        """
        x0 = to_float(batch["image"])
        source = SampleNoise(seeds, x0.device)
        t, weight = self.timesteps.sample(source.rand())
        noise = source.randn_like(x0)
        label = None
        if augmentation is not None:
            x0, label = augmentation(x0, source)
        return Noised(x0, noise, self.process.q_sample(x0, t, noise), t, weight, source, label)

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
        if isinstance(self.timesteps, LossAwareTimesteps):
            self._seen_timesteps.append(torch.stack([terms.t.double(), values["loss"].double()]))
        self.window.add(values, terms.t, torch.isfinite(values["loss"]))
        return terms.minimised

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on held-out samples, whose noise and timesteps never change; padding counts nothing."""
        terms = self.terms(batch, [stream_seed(self.seed, "val", i) for i in batch["index"].tolist()], training=False)
        self._validation.add(terms.values, terms.t, batch["weight"].to(terms.t.device))

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

    def _over_all_ranks(self, window: QuartileWindow) -> Tensor:
        sums = self.trainer.strategy.reduce(window.sums().to(self.device, copy=True), reduce_op="sum")
        assert isinstance(sums, Tensor)
        return sums

    def _update_timesteps(self) -> None:
        """Loss-aware sampling learns from the losses of all ranks and parts at once, so that all keep drawing alike."""
        if isinstance(self.timesteps, LossAwareTimesteps):
            for seen in self._seen_timesteps:
                gathered = self.all_gather(seen)
                assert isinstance(gathered, Tensor)
                flat = gathered.movedim(-2, 0).reshape(2, -1)
                flat = flat[:, torch.isfinite(flat[1])]
                self.timesteps.update(flat[0].long(), flat[1])
            self._seen_timesteps.clear()

    # -- the clock and the optimizer --------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # A fused optimizer takes the loss scale out of the gradients itself, which is after they were clipped.
        return build_optimizer(self.optimizer_config, self.parameters(), fused=self.trainer.precision != "16-mixed")

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        factor = learning_rate_factor(self.optimizer_config.schedule, self.train_step, self.max_steps)
        for group in optimizer.param_groups:
            group["lr"] = self.optimizer_config.lr * factor
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self._update_timesteps()
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
        if isinstance(self.timesteps, LossAwareTimesteps):
            state["timesteps"] = self.timesteps.state_dict()
        checkpoint["difflab"] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["difflab"]
        self.train_step = state["train_step"]
        self.train_images = state["train_images"]
        if self.global_rank == 0:
            self.window.restore(state["loss_window"])
        if isinstance(self.timesteps, LossAwareTimesteps):
            self.timesteps.load_state_dict(state["timesteps"])


def _seed_global_stream(device: torch.device, seed: int) -> None:
    # torch.manual_seed formats the call stack once for each kind of device that is not in use, at every call.
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
