"""The training step: parts of a batch, gradients, named optimizers, and the step counter."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from difflab.config.optimizer import OptimizerConfig
from difflab.errors import UserError
from difflab.optimizer import build_optimizer, learning_rate_factor
from difflab.parts.selection import trained
from difflab.seeding import stream_seed
from difflab.tasks.gradients import average_gradients
from difflab.types import Batch

ONLY = "optimizer"
"""The name of the optimizer of a task that has only one."""


@dataclass(frozen=True)
class Optimized:
    """What one optimizer trains: the trainable parameters of `parts`, as `config` says."""

    parts: Sequence[nn.Module]
    config: OptimizerConfig


@dataclass(frozen=True)
class Part:
    """One of the `count` equal parts, numbered from 0, into which a process splits its share of a global batch.

    seeds: of the random streams of its samples.
    """

    batch: Batch
    seeds: list[int]
    number: int
    count: int

    @property
    def is_last(self) -> bool:
        return self.number == self.count - 1


class SteppingModule(L.LightningModule):
    """Takes the training steps. Subclasses define what a step does (`optimize`) and its optimizers (`optimized`).

    accumulate:   the number of parts into which a process splits its share of a global batch.
    gradient_clip: the maximum gradient norm of one optimizer; 0 = no clipping.
    train_step:   optimized batches so far, the clock of all logging, saving and averaging.
    train_images: images so far, over all ranks.
    grad_norms:   of the last step, before clipping, by the name of the optimizer.
    The random numbers of a sample are a function of (seed, train_step, its position in the global batch), whatever the
    number of ranks, workers and parts.
    """

    def __init__(
        self, optimizer: OptimizerConfig, *, seed: int, max_steps: int, accumulate: int, gradient_clip: float
    ) -> None:
        super().__init__()
        # Lightning's own loop supports one optimizer, and parts of a batch only as batches.
        self.automatic_optimization = False
        self.optimizer_config = optimizer
        self.seed = seed
        self.max_steps = max_steps
        self.accumulate = accumulate
        self.gradient_clip = gradient_clip
        self.train_step = 0
        self.train_images = 0
        self.step_skipped = False  # set by the non-finite guard between backward and the optimizer
        self.grad_norms: dict[str, Tensor] = {}
        self._parts_of_step = 0
        self._configs: dict[str, OptimizerConfig] = {}
        self._updating = ONLY

    # -- defined by a task ------------------------------------------------------------------------------------------

    def optimized(self) -> Mapping[str, Optimized]:
        """The optimizers by name. Every trained parameter belongs to exactly one of them."""
        return {ONLY: Optimized((self,), self.optimizer_config)}

    @abstractmethod
    def optimize(self, batch: Batch) -> Tensor:
        """Takes one step on this process's share of a global batch; returns the loss for display.

        For one optimizer after the other: call `add_gradients` for each part of the batch (or for the whole batch if
        the loss
        needs it: `parts(batch, 1)`), then `update`.
        """

    def on_optimized(self) -> None:
        """Called after every step, including skipped ones."""

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        model = self.trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            # Otherwise DDP takes the previous step, whose gradients were not synchronized through it, for one of
            # accumulation, and leaves each process with its own buffers.
            model.require_forward_param_sync = True

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step of all optimizers, and one tick of the clock."""
        self._parts_of_step = 0
        loss = self.optimize(batch)
        self.on_optimized()
        if not self.step_skipped:
            self.train_step += 1
            self.train_images += len(batch["position"]) * self.trainer.world_size
        return loss

    # -- building blocks of a step ------------------------------------------------------------------------------------

    def parts(self, batch: Batch, count: int | None = None) -> Iterator[Part]:
        """Splits a process's share of a batch, every field alike, into `count` (None: `accumulate`) equal parts.

        Raises ValueError if it cannot be split equally.
        """
        count, samples = count or self.accumulate, len(batch["position"])
        size, rest = divmod(samples, count)
        if rest or not size:
            raise ValueError(f"{samples} samples cannot be split into {count} equal parts")
        uneven = [name for name, values in batch.items() if len(values) != samples]
        if uneven:
            raise ValueError(f"a batch of {samples} samples has {len(batch[uneven[0]])} of {uneven[0]}")
        for number in range(count):
            self._parts_of_step += 1
            # Dropout uses the global generator: seeded by the step, it needs no stored state.
            seed = stream_seed(self.seed, "dropout", self.train_step, self._parts_of_step, self.global_rank)
            _seed_global_stream(self.device, seed)
            part = {name: values[number * size : (number + 1) * size] for name, values in batch.items()}
            seeds = [stream_seed(self.seed, "train", self.train_step, p) for p in part["position"].tolist()]
            yield Part(part, seeds, number, count)

    def add_gradients(self, loss: Tensor, part: Part, optimizer: str = ONLY) -> None:
        """Adds the gradients of a part's mean loss to those that `update` of that optimizer will use.

        All parts have the same weight. With one optimizer, DistributedDataParallel exchanges the gradients during the
        backward pass of the last part, so the last loss has to depend on every parameter. With several, only the
        gradients of the parameters of `optimizer` are computed.
        """
        several = len(self._configs) > 1
        only = {"inputs": self._parameters_of(optimizer)} if several else {}
        with self._outside_of_autocast(), self._exchanging(part.is_last and not several):
            self.manual_backward(loss / part.count, **only)

    def update(self, optimizer: str = ONLY) -> None:
        """Takes the step of an optimizer with the accumulated gradients, and clears them.

        The learning rate follows the clock, the norm is clipped and recorded, and the guard may skip the step. `update`
        of one optimizer comes before the gradients of the next are added (a loss scale may change with it).
        """
        config, lightning_optimizer = self._configs[optimizer], self.optimizers_by_name()[optimizer]
        factor = learning_rate_factor(config.schedule, self.train_step, self.max_steps)
        for group in lightning_optimizer.param_groups:
            group["lr"] = config.lr * factor
        self._updating = optimizer
        with self._outside_of_autocast():
            if len(self._configs) > 1 and self.trainer.world_size > 1:
                average_gradients(self._parameters_of(optimizer))
            lightning_optimizer.step()
        lightning_optimizer.zero_grad(set_to_none=True)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clips the norm and records it: gradients are unscaled by now, and the guard has removed non-finite ones."""
        limit = self.gradient_clip or float("inf")
        self.grad_norms[self._updating] = nn.utils.clip_grad_norm_(_parameters_in(optimizer), limit)

    def _parameters_of(self, optimizer: str) -> list[nn.Parameter]:
        return _parameters_in(self.optimizers_by_name()[optimizer])

    def _outside_of_autocast(self) -> contextlib.AbstractContextManager[Any]:
        # Lightning's covers all of `training_step`; autocast is meant for the forward pass alone.
        return torch.autocast(self.device.type, enabled=False)

    def _exchanging(self, now: bool) -> contextlib.AbstractContextManager[Any]:
        strategy = self.trainer.strategy
        waits = not now and isinstance(strategy, ParallelStrategy)
        return strategy.block_backward_sync() if waits else contextlib.nullcontext()

    # -- the optimizers ---------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[Optimizer]:
        # A fused optimizer unscales the gradients itself, which is after they were clipped.
        fused = self.trainer.precision != "16-mixed"
        self._configs = {name: one.config for name, one in self.optimized().items()}
        return [
            build_optimizer(self._configs[name], parameters.values(), fused=fused)
            for name, parameters in self.trained_by().items()
        ]

    def optimizers_by_name(self) -> dict[str, Any]:
        """The optimizers of this training, as Lightning wraps them."""
        ours = self.optimizers()
        return dict(zip(self._configs, ours if isinstance(ours, list) else [ours], strict=True))

    def trained_by(self) -> dict[str, dict[str, nn.Parameter]]:
        """The parameters of each optimizer, under their names in this module.

        Raises UserError if an optimizer has no parameters to train.
        """
        all_trained = trained(self)
        by_optimizer: dict[str, dict[str, nn.Parameter]] = {}
        for name, one in self.optimized().items():
            own = {id(parameter) for part in one.parts for parameter in part.parameters()}
            by_optimizer[name] = {key: p for key, p in all_trained.items() if id(p) in own}
            if not by_optimizer[name]:
                raise UserError(f"nothing is left to train for the {name}: name a part of it in init.train")
        owned = [key for parameters in by_optimizer.values() for key in parameters]
        assert sorted(owned) == sorted(all_trained), "every trained parameter has exactly one optimizer"
        return by_optimizer


def _seed_global_stream(device: torch.device, seed: int) -> None:
    # torch.manual_seed formats the call stack once for each kind of device that is not in use, at every call.
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _parameters_in(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
