"""A training run put together: module, data, callbacks and loggers in one Trainer."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.utils.deterministic as deterministic
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from rich.console import Console

from difflab.callbacks.build import build_callbacks
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO, DiskFullError
from difflab.callbacks.guard import NonFiniteError
from difflab.callbacks.preemption import Preempted
from difflab.commands.heartbeat import beating
from difflab.commands.launching import launched
from difflab.commands.processes import environment_of, layout_of_training, leaving_together
from difflab.config.model import ModelConfig
from difflab.config.train import TrainConfig
from difflab.data.build import class_names_of
from difflab.errors import UserError
from difflab.interop.keymap import refuse_misfit, shapes_of
from difflab.metrics.evaluator import Evaluator
from difflab.models.build import build_training_module
from difflab.models.datamodule import ShardDataModule
from difflab.models.devices import (
    Accelerator,
    is_first_process,
    on_cuda_only,
    resolve_accelerator,
    sampling_autocast,
    training_precision,
)
from difflab.models.training_module import TrainingModule
from difflab.pipelines.evaluating import build_evaluator
from difflab.pipelines.low_res import open_low_res
from difflab.pipelines.single import SinglePipeline
from difflab.pipelines.stored import load_initial_weights, read_checkpoint
from difflab.seeding import stream_seed
from difflab.signals import shielded
from difflab.tracking.build import build_loggers
from difflab.tracking.rundir import RunDirectory

LIGHTNING_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric")


def fit(
    config: TrainConfig, plain: dict[str, Any], overrides: list[str], run: RunDirectory, resume: Path | None
) -> None:
    """Train in the run directory, from `resume` if there is one; a run that has all its steps is left as it is.

    Raises UserError where nothing can be trained on from `resume`.
    """
    accelerator = resolve_accelerator(config.trainer.accelerator)
    if resume is not None and is_finished(resume, run, config.trainer.max_steps):
        if is_first_process():
            steps = config.trainer.max_steps
            say(f"already at step {steps} of {steps}: nothing to train, everything is in {_short(run.path)}")
        return
    if is_first_process():
        run.write_records(plain, overrides)
    with contextlib.ExitStack() as stack:
        stack.enter_context(run.log_to_file())
        hush_lightning()
        module = build_module(config, accelerator, initial_weights=resume is None)
        if resume is not None:
            refuse_misfit(read_checkpoint(resume)["state_dict"], shapes_of(module.state_dict()), str(resume))
        data = ShardDataModule(config.data, config.trainer, seed=config.seed, fields=module.batch_keys())
        with shielded():
            # A scheduler signals every process of a job; those that log have to outlive the last metrics.
            loggers = stack.enter_context(build_loggers(config.logger, run, plain))
        layout = layout_of_training(config.trainer.devices, config.trainer.num_nodes, accelerator)
        others = stack.enter_context(launched(layout.per_node, layout.nodes, by_others=layout.starter != "difflab"))
        trainer = build_trainer(config, accelerator, run, module, loggers, environment_of(layout))
        stack.enter_context(leaving_together(DiskFullError, NonFiniteError, Preempted))
        stack.enter_context(beating(layout.rank, layout.total, config.trainer.ranks, others))
        stack.enter_context(signals_as_such())
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    if trainer.is_global_zero:
        report(run, module)


def is_finished(resume: Path, run: RunDirectory, max_steps: int) -> bool:
    """Whether the run's own checkpoint has all the steps that are asked for.

    Raises UserError where it has more, or where the checkpoint is another run's and leaves nothing to train.
    """
    step = read_checkpoint(resume)["difflab"]["train_step"]
    if step < max_steps:
        return False
    if step > max_steps or not (run.last_checkpoint.is_file() and resume.samefile(run.last_checkpoint)):
        raise UserError(
            f"trainer.max_steps={max_steps}, but {_short(resume)} is at step {step} already: "
            "give a larger trainer.max_steps, or another name=... to start anew"
        )
    return True


def build_module(config: TrainConfig, accelerator: Accelerator, *, initial_weights: bool = True) -> TrainingModule:
    """The module with its initial weights, which are the same on every rank, in the layout of the device.

    initial_weights: False where a checkpoint replaces them anyway; those of `init` need not exist any more.
    """
    torch.manual_seed(stream_seed(config.seed, "init"))
    module = build_training_module(config)
    if config.init.kind == "weights" and initial_weights:
        load_initial_weights(module, config.init.path, config.init.which)
    if on_cuda_only(config.trainer.channels_last, accelerator):
        module.network.to(memory_format=torch.channels_last)
    if on_cuda_only(config.trainer.compile, accelerator):
        module.network.compile()
    return module


def build_trainer(
    config: TrainConfig,
    accelerator: Accelerator,
    run: RunDirectory,
    module: TrainingModule,
    loggers: list[Logger],
    environment: ClusterEnvironment,
) -> L.Trainer:
    """Lightning's Trainer. Its own progress bar, checkpoints and summary give way to difflab's."""
    asked = config.trainer
    if accelerator == "cuda":
        torch.set_float32_matmul_precision("high")
    # Deterministic algorithms are what a resumed run needs; filling every new buffer, too, only slows each step down.
    deterministic.fill_uninitialized_memory = False  # pyrefly: ignore
    pipeline = sampling_pipeline(config, module, accelerator)
    callbacks = build_callbacks(
        config,
        run,
        model_config=ModelConfig.of(config),
        generate=pipeline,
        labels=None if pipeline is None else pipeline.labels,
        make_evaluator=None if pipeline is None else lambda: build_run_evaluator(config, pipeline, trainer),
    )
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=asked.devices,
        num_nodes=asked.num_nodes,
        strategy=asked.strategy,
        precision=training_precision(asked.precision, accelerator),
        max_steps=-1,
        max_epochs=1,
        accumulate_grad_batches=asked.accumulate,
        gradient_clip_val=asked.gradient_clip or None,
        deterministic="warn" if asked.deterministic else False,
        benchmark=not asked.deterministic,
        val_check_interval=asked.val_every_steps * asked.accumulate or None,
        check_val_every_n_epoch=None if asked.val_every_steps else 1,
        limit_val_batches=asked.val_batches if asked.val_every_steps else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=asked.log_every_steps,
        logger=loggers,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), environment],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=run.path,
    )
    # Ours are there from the first line of the command to the last.
    trainer._signal_connector = _NoHandlers(trainer)
    return trainer


class _NoHandlers(_SignalConnector):
    """Lightning's handlers broadcast and save wherever a signal finds them, so that ranks wait for each other."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False


def build_run_evaluator(config: TrainConfig, pipeline: SinglePipeline, trainer: L.Trainer) -> Evaluator:
    """What judges the samples of the evaluation callback."""
    asked = config.callbacks.evaluation
    assert asked is not None, "only the evaluation callback asks for an evaluator"
    return build_evaluator(
        config.metrics,
        pipeline,
        n=asked.n,
        seed=asked.seed,
        weights="raw" if config.callbacks.ema is None else "ema",
        data=config.data,
        split=config.data.train_split,
        class_names=class_names_of(config.data),
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )


def sampling_pipeline(config: TrainConfig, module: TrainingModule, accelerator: Accelerator) -> SinglePipeline | None:
    """What the sample grid and the evaluation during training draw with: the run's own sampler and guidance.

    None where the task draws nothing. An upsampler enlarges images of the validation split, where there is one.
    Raises UserError for a guidance that asks further networks, which no training has beside it.
    """
    if config.task != "denoising":
        return None
    free = config.guidance.classifier_free_options()
    if config.guidance.classifier_options() is not None or (free is not None and free.reference is not None):
        raise UserError(
            f"guidance.kind={config.guidance.kind} asks a further network: train with guidance=none or classifier_free "
            "alone, and give it to `difflab sample` and `difflab evaluate`"
        )
    model = ModelConfig.of(config)
    return SinglePipeline(
        module.network,
        module.conditioners,
        module.process,
        model.shape,
        sampler=config.sampler,
        guidance=config.guidance,
        low_res=open_low_res(None, model, config.data, config.data.val_split or config.data.train_split),
        autocast=sampling_autocast("auto", accelerator),
    )


def hush_lightning() -> None:
    """Lightning's remarks (devices found, products to try) go to log.txt alone; its warnings are shown."""
    # Lightning 2.6 asks torch's pytree in a way that torch has renamed.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated")
    for name in LIGHTNING_LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.WARNING)


def report(run: RunDirectory, module: TrainingModule) -> None:
    """Say where everything of a finished run lies."""
    places = {
        "run": run.path,
        "weights": next(iter(sorted(run.weights.glob("*.safetensors"))), run.weights),
        "pictures": run.samples,
        "metrics": run.metrics,
        "W&B": run.wandb,
    }
    say(f"trained {module.train_step} steps ({module.train_images} images)")
    for name, path in places.items():
        if path.exists():
            say(f"  {name:<9} {_short(path)}")


def say(line: str) -> None:
    """One line on standard output, as it is."""
    Console(highlight=False, soft_wrap=True, markup=False).print(line)


@contextlib.contextmanager
def signals_as_such() -> Iterator[None]:
    """Lightning turns a signal into SystemExit(1), which nobody can tell from a crash: turn it back."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
