"""Lightning's Trainer as a run uses it: difflab's callbacks, signals and messages in place of its own."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import lightning as L
import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from difflab.callbacks.build import build_callbacks
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.context import CallbackContext
from difflab.commands.training_evaluation import build_run_evaluator
from difflab.config.train import TrainConfig
from difflab.devices import Accelerator, choose_algorithms, on_cuda_only, training_precision
from difflab.metrics.evaluator import Evaluator
from difflab.pipelines.base import Pipeline
from difflab.tracking.rundir import RunDirectory

_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric")


def build_trainer(
    config: TrainConfig,
    accelerator: Accelerator,
    run: RunDirectory,
    pipeline: Pipeline | None,
    loggers: list[Logger],
    environment: ClusterEnvironment,
) -> L.Trainer:
    """Builds Lightning's Trainer, with its progress bar, checkpoints and summary replaced by difflab's.

    pipeline: generates samples; None if the task is not generative.
    """
    requested = config.trainer
    if accelerator == "cuda":
        torch.set_float32_matmul_precision("high")
    choose_algorithms(requested.deterministic, accelerator, compiles=on_cuda_only(requested.compile, accelerator))

    def make_evaluator(n: int, seed: int) -> Evaluator:
        assert pipeline is not None, "the task is generative"
        return build_run_evaluator(config, pipeline, n, seed, trainer.global_rank, trainer.world_size)

    context = CallbackContext(
        config,
        run,
        config.model(),
        generate=pipeline,
        request=None if pipeline is None else pipeline.request.without_pictures(),
        make_evaluator=None if pipeline is None else make_evaluator,
    )
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=requested.devices,
        num_nodes=requested.num_nodes,
        strategy=requested.strategy,
        precision=training_precision(requested.precision, accelerator),
        max_steps=-1,
        max_epochs=1,
        benchmark=not requested.deterministic,
        # The Validation callback validates; a fit has only one epoch.
        check_val_every_n_epoch=2,
        limit_val_batches=requested.val_batches if requested.val_every_steps else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=requested.log_every_steps,
        logger=loggers,
        callbacks=build_callbacks(context),
        plugins=[AtomicCheckpointIO(), environment],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=run.path,
    )
    # Ours are installed from the first line of the command to the last.
    trainer._signal_connector = _NoHandlers(trainer)
    return trainer


class _NoHandlers(_SignalConnector):
    """Lightning's handlers broadcast and save wherever a signal arrives, so that ranks wait for each other."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False


def hush_lightning() -> None:
    """Sends Lightning's remarks (devices found, products to try) to log.txt only; its warnings are shown."""
    # Lightning 2.6 uses a function of torch's pytree that torch has renamed.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated")
    # Shown wherever SLURM is installed, even outside of its jobs; difflab starts the processes itself.
    warnings.filterwarnings("ignore", message=r".*`srun` command is available")
    for name in _LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.WARNING)


@contextlib.contextmanager
def signals_as_such() -> Iterator[None]:
    """Restores a signal that Lightning turns into SystemExit(1), which looks like a crash."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
