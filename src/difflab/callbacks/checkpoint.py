"""Training checkpoints, named by the optimized step."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from difflab.callbacks.agreement import refuse_together
from difflab.callbacks.clock import EverySteps, train_step
from difflab.callbacks.config import CheckpointConfig
from difflab.callbacks.guard import NonFiniteError
from difflab.callbacks.throughput import off_the_clock
from difflab.checkpoints import LAST, checkpoint_name, step_checkpoints
from difflab.files import link_or_copy
from difflab.machine import MachineError, machine_errors
from difflab.parts.selection import trained

if TYPE_CHECKING:
    from difflab.callbacks.context import CallbackContext

log = logging.getLogger(__name__)


class Checkpoint(Callback):
    """Saves `step-000100.ckpt` every `every_steps` optimized steps and at the end; `last.ckpt` is the newest of them.

    The newest `keep_last` are kept. Weights that are not finite are never saved. A full disk ends training on all
    processes with MachineError.

    Use it with AtomicCheckpointIO (the Trainer's `plugins`) and `enable_checkpointing=False`. It does not derive from
    Lightning's Checkpoint, because Lightning moves those behind all other callbacks, and they would save only after an
    evaluation, which may fail or be killed.

    An exception between two batches (for example in the loader) also saves, in a run of one process; one in the middle
    of a batch does not, because the loader would have counted a batch that was not trained on.
    """

    def __init__(
        self,
        dirpath: Path | str,
        every_steps: int = 1000,
        keep_last: int = 2,
        at_end: bool = True,
        on_exception: bool = True,
    ) -> None:
        self.dirpath = Path(dirpath)
        self.keep_last, self.at_end, self.save_on_exception = keep_last, at_end, on_exception
        self._every = EverySteps(every_steps)
        self._saved_step: int | None = None
        self._in_batch = True

    @property
    def saved_step(self) -> int | None:
        """The step of the newest checkpoint that this training has written."""
        return self._saved_step

    def save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Path | None:
        """Saves now, on every process; returns the file, or None if this step is saved already or must not be."""
        step = train_step(pl_module)
        if step == self._saved_step:
            return None
        if not _weights_are_finite(pl_module):
            log.warning("step %d: the weights are not finite, no checkpoint is written", step)
            return None
        path = self.dirpath / checkpoint_name(step)
        with off_the_clock(trainer):
            self._save_on_all_ranks(trainer, path, step)
        self._saved_step = step
        return path

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert not trainer.checkpoint_callbacks, "difflab's Checkpoint needs Trainer(enable_checkpointing=False)"

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = train_step(pl_module)
        self._every.start(step)
        # The checkpoint that training resumes from is saved: at the end Lightning would take a second one for a
        # finished fit.
        source = trainer.ckpt_path
        own = source is not None and Path(source).resolve().parent == self.dirpath.resolve()
        self._saved_step = step if own else None
        self._in_batch = False

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._in_batch = True

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # The last step is saved here too: after the end of the epoch Lightning would take a checkpoint for a finished
        # fit, which could not be trained further.
        if self._every.due(train_step(pl_module)) or (self.at_end and trainer.should_stop):
            self.save(trainer, pl_module)
        self._in_batch = False

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.at_end:
            self.save(trainer, pl_module)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        unsavable = self._in_batch or trainer.world_size > 1 or isinstance(exception, NonFiniteError | MachineError)
        if self.save_on_exception and not unsavable and train_step(pl_module) > 0:
            self.save(trainer, pl_module)

    def _save_on_all_ranks(self, trainer: pl.Trainer, path: Path, step: int) -> None:
        refused: MachineError | None = None
        try:
            trainer.save_checkpoint(path)
        except MachineError as error:
            refused = error
            # The other processes already wait in the barrier of save_checkpoint, which the error skipped.
            trainer.strategy.barrier("Trainer.save_checkpoint")
        if refused is None and trainer.is_global_zero:
            try:
                self._name_newest(path, step)
            except MachineError as error:
                refused = error
        refuse_together(trainer, refused)

    def _name_newest(self, path: Path, step: int) -> None:
        link_or_copy(path, self.dirpath / LAST)
        for _, old in step_checkpoints(self.dirpath, up_to=step)[: -self.keep_last]:
            with machine_errors(old):
                old.unlink(missing_ok=True)


def _weights_are_finite(pl_module: pl.LightningModule) -> bool:
    weights = [p.detach() for p in trained(pl_module).values() if p.numel()]
    if not weights:
        return True
    # A norm is not finite if any entry is not (or if it overflows, and such weights are lost as well).
    return bool(torch.stack([n.float() for n in torch._foreach_norm(weights, ord=float("inf"))]).isfinite().all())


def build(config: CheckpointConfig, context: CallbackContext) -> list[Callback]:
    """The checkpoint callback and, before it, the weights that are exported with each checkpoint."""
    from difflab.callbacks.weights import WeightsExport

    run, exporting = context.run, list[Callback]()
    if config.export_weights:
        model = context.model_config.model_dump(mode="json")
        exporting = [WeightsExport(run.weights, model, run.wandb / "artifact_step")]
    return [*exporting, Checkpoint(run.checkpoints, **config.model_dump(exclude={"export_weights"}))]
