"""The exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from typing_extensions import override

from difflab.averaging.parameters import (
    Groups,
    average_in,
    by_device_and_type,
    copies_of,
    fitted,
    with_averages,
)
from difflab.callbacks.clock import find_callback, train_step
from difflab.callbacks.config import EMAConfig
from difflab.parts.selection import averaged_parameters

if TYPE_CHECKING:
    from difflab.callbacks.context import CallbackContext

Warmup = Literal["none", "count", "inv_gamma", "ramp_up"]


def decay_of_half_life(half_life: float, images_per_step: int) -> float:
    """The decay per step that halves a weight's share after `half_life` images; EDM's training_loop.py."""
    return 0.5 ** (images_per_step / half_life)


def ema_decay(
    n: int,
    decay: float,
    warmup: Warmup = "none",
    power: float = 0.75,
    inv_gamma: float = 1.0,
    ramp_up: float = 0.05,
) -> float:
    """The decay of the n-th averaged step, n = 1, 2, ...

    none:      decay.
    count:     min(decay, (1 + n) / (10 + n)); tf.train.ExponentialMovingAverage with num_updates, LitEma.
    inv_gamma: min(decay, 1 - (1 + (n - 1) / inv_gamma) ** -power); k-diffusion EMAWarmup, diffusers EMAModel.
               The first step gives 0, so the average starts as a copy.
    ramp_up:   the half-life is at most `ramp_up` of the training so far, n - 1 steps; EDM's ema_rampup_ratio. The first
               step gives 0.
    """
    if warmup == "ramp_up":
        return 0.0 if n == 1 else min(decay, 0.5 ** (1.0 / (ramp_up * (n - 1))))
    if warmup == "count":
        return min(decay, (1 + n) / (10 + n))
    if warmup == "inv_gamma":
        return min(decay, 1.0 - (1.0 + (n - 1) / inv_gamma) ** -power)
    return decay


class EMA(Callback):
    """average = d * average + (1 - d) * weights after every optimized step, in float32.

    The average starts as a copy of the initial weights (and stays a copy until `start_step`). It follows the module's
    `train_step`: once per optimized step, whatever the accumulation or the number of optimizers. Every process computes
    the same average from the same weights. With `every` = k it is updated every k steps with the decays of those steps
    multiplied, so the horizon does not depend on k. Buffers are not averaged.

    Parameters that are not trained, and those of training-only parts, are left unchanged. The raw weights stay in the
    module; `applied` temporarily replaces them by the average.
    """

    def __init__(
        self,
        decay: float = 0.9999,
        warmup: Warmup = "none",
        power: float = 0.75,
        inv_gamma: float = 1.0,
        ramp_up: float = 0.05,
        every: int = 1,
        start_step: int = 0,
        validate_with: Literal["ema", "raw"] = "ema",
    ) -> None:
        self.decay, self.warmup, self.power, self.inv_gamma, self.ramp_up = decay, warmup, power, inv_gamma, ramp_up
        self.every, self.start_step, self.validate_with = every, start_step, validate_with
        self.averages: dict[str, Tensor] = {}
        self.step = 0
        self._groups: Groups = []
        self._swapped = False
        self._validation = contextlib.ExitStack()

    @classmethod
    def from_config(cls, config: EMAConfig, context: CallbackContext) -> EMA:
        options = config.model_dump(exclude={"half_life"})
        if config.half_life is not None:
            options["decay"] = decay_of_half_life(config.half_life, context.config.data.batch_size)
        return cls(**options)

    def start(self, module: nn.Module, step: int = 0) -> None:
        """Begins at `step` with a copy of the parameters, or continues with the averages that were loaded."""
        parameters = averaged_parameters(module)
        if not self.averages:
            self.averages = copies_of(parameters)
            self.step = step
        self.averages = fitted(self.averages, parameters)
        self._groups = by_device_and_type(self.averages, parameters)

    def update(self, step: int) -> None:
        """Adds the weights after optimized step `step` to the average; a step seen before changes nothing."""
        assert self._groups, "call start before update"
        if step == self.step or (step % self.every and step != self.start_step):
            return
        decay = self._decay_between(self.step, step)
        self.step = step
        average_in(self._groups, decay)

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Inside, `module` has the averaged weights; afterwards the raw ones again, bit for bit. May be nested."""
        if self._swapped or not self.averages:
            yield
            return
        parameters = averaged_parameters(module)
        raw = {name: p.detach().clone() for name, p in parameters.items()}
        _copy_into(parameters, self.averages)
        self._swapped = True
        try:
            yield
        finally:
            _copy_into(parameters, raw)
            self._swapped = False

    def ema_state_dict(self, module: nn.Module) -> dict[str, Tensor]:
        """The exported state of `module`, with the averages (in the weights' own dtype) in place of raw parameters."""
        return with_averages(module, self.averages)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"averages": dict(self.averages), "step": self.step}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.averages = dict(state_dict["averages"])
        self.step = int(state_dict["step"])

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start(pl_module, train_step(pl_module))

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.update(train_step(pl_module))

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.validate_with == "ema":
            if self.averages:
                self.start(pl_module)
            self._validation.enter_context(self.applied(pl_module))

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation.close()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._validation.close()

    def _decay_between(self, done: int, step: int) -> float:
        if step <= self.start_step:
            return 0.0
        product = 1.0
        for n in range(max(done, self.start_step) + 1, step + 1):
            product *= ema_decay(n - self.start_step, self.decay, self.warmup, self.power, self.inv_gamma, self.ramp_up)
        return product


def find_ema(trainer: pl.Trainer) -> EMA | None:
    """The trainer's EMA callback, or None."""
    return find_callback(trainer, EMA)


def averaged(trainer: pl.Trainer, module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """A context in which `module` has its averaged weights, if the run keeps an average."""
    ema = find_ema(trainer)
    return contextlib.nullcontext() if ema is None else ema.applied(module)


@torch.no_grad()
def _copy_into(targets: dict[str, nn.Parameter], sources: dict[str, Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(sources[name])
