"""A training run put together: module, data, callbacks and loggers in one Trainer."""

from __future__ import annotations

import contextlib
import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console

from difflab.callbacks.build import build_callbacks
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.config.model import ModelConfig
from difflab.config.train import TrainConfig
from difflab.metrics.evaluator import Evaluator
from difflab.models.build import build_diffusion
from difflab.models.datamodule import ShardDataModule
from difflab.models.devices import Accelerator, on_cuda_only, resolve_accelerator, sampling_autocast, training_precision
from difflab.models.diffusion import DiffusionModule
from difflab.pipelines.evaluating import build_evaluator
from difflab.pipelines.single import SinglePipeline
from difflab.pipelines.stored import load_initial_weights
from difflab.seeding import stream_seed
from difflab.tracking.build import build_loggers
from difflab.tracking.rundir import RunDirectory

LIGHTNING_LOGGERS = ("lightning.pytorch", "lightning.fabric")


def fit(
    config: TrainConfig, plain: dict[str, Any], overrides: list[str], run: RunDirectory, resume: Path | None
) -> None:
    """Train in the run directory, from `resume` if there is one."""
    accelerator = resolve_accelerator(config.trainer.accelerator)
    if getattr(rank_zero_only, "rank", 0) == 0:
        run.write_records(plain, overrides)
    with contextlib.ExitStack() as stack:
        stack.enter_context(run.log_to_file())
        hush_lightning()
        module = build_module(config, accelerator)
        data = ShardDataModule(config.data, config.trainer, seed=config.seed, fields=module.conditioners.batch_keys())
        loggers = stack.enter_context(build_loggers(config.logger, run, plain))
        trainer = build_trainer(config, accelerator, run, module, loggers)
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    if trainer.is_global_zero:
        report(run, module)


def build_module(config: TrainConfig, accelerator: Accelerator) -> DiffusionModule:
    """The module with its initial weights, which are the same on every rank, in the layout of the device."""
    torch.manual_seed(stream_seed(config.seed, "init"))
    module = build_diffusion(config)
    if config.init.kind == "weights":
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
    module: DiffusionModule,
    loggers: list[Logger],
) -> L.Trainer:
    """Lightning's Trainer. Its own progress bar, checkpoints and summary give way to difflab's."""
    asked = config.trainer
    if accelerator == "cuda":
        torch.set_float32_matmul_precision("high")
    pipeline = sampling_pipeline(config, module, accelerator)
    callbacks = build_callbacks(
        config,
        run,
        model_config=ModelConfig.of(config),
        generate=pipeline,
        labels=pipeline.labels,
        make_evaluator=lambda: build_run_evaluator(config, pipeline, trainer),
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
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=run.path,
    )
    return trainer


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
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )


def sampling_pipeline(config: TrainConfig, module: DiffusionModule, accelerator: Accelerator) -> SinglePipeline:
    """What the sample grid and the evaluation during training draw with: the run's own sampler and guidance."""
    return SinglePipeline(
        module.network,
        module.conditioners,
        module.process,
        ModelConfig.of(config).shape,
        sampler=config.sampler,
        guidance=config.guidance,
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


def report(run: RunDirectory, module: DiffusionModule) -> None:
    """Say where everything of a finished run lies."""
    places = {
        "run": run.path,
        "weights": run.weights / "ema.safetensors",
        "pictures": run.samples,
        "metrics": run.metrics,
        "W&B": run.wandb,
    }
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"trained {module.train_step} steps ({module.train_images} images)")
    for name, path in places.items():
        if path.exists():
            console.print(f"  {name:<9} {_short(path)}")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
