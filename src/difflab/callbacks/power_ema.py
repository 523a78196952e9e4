"""Power-function averages of the weights, with snapshots from which any EMA length is computed after training."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from typing_extensions import override

import difflab
from difflab.averaging.parameters import (
    Groups,
    average_in,
    by_device_and_type,
    copies_of,
    fitted,
    with_averages,
)
from difflab.averaging.profiles import Profile, gamma_of, power_decay
from difflab.averaging.snapshots import snapshot_name, snapshots_in
from difflab.callbacks.agreement import refuse_together
from difflab.callbacks.clock import EverySteps, train_step
from difflab.callbacks.config import PowerEMAConfig
from difflab.callbacks.throughput import off_the_clock
from difflab.callbacks.weights import save_weights
from difflab.errors import UserError
from difflab.machine import MachineError
from difflab.parts.selection import averaged_parameters

if TYPE_CHECKING:
    from difflab.callbacks.context import CallbackContext

log = logging.getLogger(__name__)


class PowerEMA(Callback):
    """For each length: average = b * average + (1 - b) * weights, b = (1 - 1 / step)**(gamma + 1), in float32.

    Karras et al. 2024 (EDM2), section 3.1. After step t the average holds the weights of step s with the share
    (s / t)**(gamma + 1) - ((s - 1) / t)**(gamma + 1): the initial weights vanish, and the profile always spans the same
    share of the training so far. It follows the module's `train_step`, as EMA does. With `every` = k it is updated
    every k steps with the decays of those steps multiplied, so the profile does not depend on k. A callback that joins
    a run later counts the weights it finds there for all steps before.

    Every `snapshot_every_steps` and, with `at_end`, at the end the first process writes one file for each length,
    `dirpath`/sigma_rel-0.050-step-001000.safetensors: the module's state dict with the averages in place of its
    parameters. Its metadata says `step`, `sigma_rel`, `gamma`, `precision`, and which tensors are `not_averaged`
    (frozen parameters and buffers, in their own type). Snapshots are kept; those after the step from which a run
    resumes are removed, like its rows in metrics.csv, since that training is repeated.
    """

    def __init__(
        self,
        dirpath: Path | str,
        sigma_rel: Sequence[float] = (0.05, 0.10),
        every: int = 1,
        snapshot_every_steps: int = 1000,
        snapshot_dtype: Literal["float32", "float16"] = "float32",
        at_end: bool = True,
    ) -> None:
        self.dirpath, self.every, self.at_end = Path(dirpath), every, at_end
        self.gammas = {length: gamma_of(length) for length in sigma_rel}
        self.snapshot_dtype = getattr(torch, snapshot_dtype)
        self.averages: dict[float, dict[str, Tensor]] = {}
        self.step = 0
        self._groups: dict[float, Groups] = {}
        self._snapshots = EverySteps(snapshot_every_steps)

    @classmethod
    def from_config(cls, config: PowerEMAConfig, context: CallbackContext) -> PowerEMA:
        return cls(context.run.power_ema, **config.model_dump())

    def start(self, module: nn.Module, step: int = 0) -> None:
        """Begins at `step`, or continues with the averages that were loaded."""
        parameters = averaged_parameters(module)
        if not self.averages:
            self.averages = {length: copies_of(parameters) for length in self.gammas}
            self.step = step
        self.averages = {length: fitted(averages, parameters) for length, averages in self.averages.items()}
        self._groups = {length: by_device_and_type(self.averages[length], parameters) for length in self.gammas}

    def update(self, step: int) -> None:
        """Adds the weights after optimized step `step` to the averages; a step seen before changes nothing."""
        assert self._groups, "call start before update"
        if step == self.step or step % self.every:
            return
        for length, gamma in self.gammas.items():
            average_in(self._groups[length], power_decay(step, gamma, step - self.step))
        self.step = step

    def snapshot(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the averages as of their last update, on the first process; existing files stay.

        Raises MachineError on every process if the machine refuses, as on a full disk.
        """
        refused: MachineError | None = None
        with off_the_clock(trainer):
            if trainer.is_global_zero and self.step > 0:
                try:
                    for length in self.gammas:
                        self._write(Profile(self.step, length), pl_module)
                except MachineError as error:
                    refused = error
            refuse_together(trainer, refused)

    @override
    def state_dict(self) -> dict[str, Any]:
        lengths = list(self.averages)
        return {"sigma_rel": lengths, "averages": [dict(self.averages[n]) for n in lengths], "step": self.step}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        lengths = state_dict["sigma_rel"]
        if lengths and set(lengths) != set(self.gammas):
            raise UserError(
                f"callbacks.power_ema.sigma_rel={list(self.gammas)}, but the run has averages of {lengths}; "
                "give the same lengths, or train under another name=..."
            )
        self.averages = {n: dict(averages) for n, averages in zip(lengths, state_dict["averages"], strict=True)}
        self.step = int(state_dict["step"])

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = train_step(pl_module)
        self.start(pl_module, step)
        self._snapshots.start(step)
        if trainer.is_global_zero:
            self._remove_after(step)
        if self._snapshots.falls_on(step):
            # The run was killed between the snapshots of one step and its checkpoint, or a file was removed.
            self.snapshot(trainer, pl_module)

    def owes(self, step: int, *, at_end: bool) -> bool:
        """Whether snapshots were due after `step` steps (`at_end`: the last ones) and are missing."""
        due = self._snapshots.falls_on(step) or (at_end and self.at_end)
        updated = step - step % self.every
        names = [snapshot_name(Profile(updated, length)) for length in self.gammas]
        return due and updated > 0 and not all((self.dirpath / name).is_file() for name in names)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = train_step(pl_module)
        self.update(step)
        if self._snapshots.due(step):
            self.snapshot(trainer, pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.at_end:
            self.snapshot(trainer, pl_module)

    def _write(self, profile: Profile, module: nn.Module) -> None:
        path = self.dirpath / snapshot_name(profile)
        if path.is_file():
            return
        averages = self.averages[profile.sigma_rel]
        state = with_averages(module, averages, self.snapshot_dtype)
        averaged = {id(p) for p in averaged_parameters(module).values()}
        names = {name for name, p in module.named_parameters(remove_duplicate=False) if id(p) in averaged}
        metadata = {
            "step": str(profile.step),
            "sigma_rel": repr(profile.sigma_rel),
            "gamma": repr(profile.gamma),
            "precision": str(self.snapshot_dtype).removeprefix("torch."),
            "not_averaged": json.dumps([name for name in state if name not in names]),
            "difflab": difflab.__version__,
            "format": "pt",
        }
        save_weights(path, state, metadata)

    def _remove_after(self, step: int) -> None:
        later = [snapshot for snapshot in snapshots_in(self.dirpath) if snapshot.profile.step > step]
        for snapshot in later:
            snapshot.path.unlink(missing_ok=True)
        if later:
            log.info("removed %d snapshots of power_ema after step %d, which is trained again", len(later), step)
