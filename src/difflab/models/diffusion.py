"""The diffusion LightningModule: one training step, and nothing that a callback can do."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from difflab.conditioning.base import ConditionerSet
from difflab.config.optimizer import OptimizerConfig
from difflab.diffusion.losses import DiffusionLoss
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.timesteps import LossAwareTimesteps, TimestepSampler
from difflab.images import to_float
from difflab.models.learning_rate import learning_rate_factor
from difflab.models.optimizer import build_optimizer
from difflab.models.windows import LossWindow
from difflab.seeding import stream_seed
from difflab.types import Batch


class DiffusionModule(L.LightningModule):
    """A network trained to denoise (Ho et al. 2020, algorithm 1).

    train_step:   optimised batches so far, the clock of everything that is logged, saved and averaged.
    train_images: images so far, over all ranks.
    Noise, timesteps and condition drops of a sample are functions of (seed, train_step, its position in the global
    batch), whatever the number of ranks, workers and accumulation parts.
    """

    def __init__(
        self,
        network: nn.Module,
        process: GaussianProcess,
        loss: DiffusionLoss,
        timesteps: TimestepSampler,
        conditioners: ConditionerSet,
        optimizer: OptimizerConfig,
        *,
        seed: int,
        max_steps: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.conditioners = conditioners
        self.process = process
        self.loss = loss
        self.timesteps = timesteps
        self.optimizer_config = optimizer
        self.seed = seed
        self.max_steps = max_steps
        self.train_step = 0
        self.train_images = 0
        self.window = LossWindow(process.num_timesteps)
        self.step_skipped = False  # set by the non-finite guard between backward and the optimizer
        self._part = 0
        self._images_of_step = 0
        self._seen_timesteps: list[Tensor] = []
        self.grad_norm: Tensor | None = None

    # -- the step -------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Algorithm 1 of Ho et al. (2020) on one part of a global batch."""
        part_size = len(batch["position"]) * self.trainer.world_size
        position = (batch["position"] + self._part * part_size).tolist()
        self._images_of_step += part_size
        self._part += 1
        # Dropout draws from the global stream: tie it to the step, so that no state of it has to be stored.
        seed = stream_seed(self.seed, "dropout", self.train_step, self._part, self.global_rank)
        _seed_global_stream(self.device, seed)
        loss, terms, t = self._loss(batch, [stream_seed(self.seed, "train", self.train_step, p) for p in position])
        if isinstance(self.timesteps, LossAwareTimesteps):
            self._seen_timesteps.append(torch.stack([t.double(), terms["loss"].detach().double()]))
        self.window.add(terms["loss"].detach(), t)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss on held-out samples, whose noise and timesteps never change; padding counts nothing."""
        _, terms, _ = self._loss(batch, [stream_seed(self.seed, "val", i) for i in batch["index"].tolist()], drop=False)
        weight = batch["weight"].to(terms["loss"])
        self._val_sum += torch.stack([(terms["loss"] * weight).sum(), weight.sum()]).double()

    def on_validation_epoch_start(self) -> None:
        self._val_sum = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_loss(self) -> float:
        """The mean over all validation samples of all ranks, since the last validation began."""
        total = self.trainer.strategy.reduce(self._val_sum, reduce_op="sum")
        return float(total[0] / total[1])

    def _loss(self, batch: Batch, seeds: list[int], drop: bool = True) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        x0 = to_float(batch["image"])
        noise_source = SampleNoise(seeds, x0.device)
        t, weight = self.timesteps.sample(noise_source.rand())
        noise = noise_source.randn_like(x0)
        dropped = {
            name: noise_source.rand() < conditioner.drop_rate
            for name, conditioner in self.conditioners.named()
            if drop and conditioner.drop_rate > 0
        }
        x_t = self.process.q_sample(x0, t, noise)
        output = self.network(x_t, self.process.network_time(t), self.conditioners.conditioning(batch, dropped))
        terms = self.loss(output.float(), x0, x_t, t, noise)
        return (terms["loss"] * weight).mean(), terms, t

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
        window = self.trainer.strategy.reduce(self.window.sums().to(self.device, copy=True), reduce_op="sum")
        assert isinstance(window, Tensor)
        state: dict[str, Any] = {
            "train_step": self.train_step,
            "train_images": self.train_images,
            "loss_window": window.cpu(),
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
