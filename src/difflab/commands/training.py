"""Assembles a training run: module, data, callbacks and loggers in one Trainer."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from difflab.callbacks.build import build_callbacks, owed_at_end
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.context import CallbackContext
from difflab.callbacks.guard import NonFiniteError
from difflab.callbacks.preemption import Preempted
from difflab.checkpoints import newest_checkpoint, step_checkpoints
from difflab.commands.heartbeat import beating
from difflab.commands.launching import launched
from difflab.commands.processes import environment_of, layout_of_training, leaving_together
from difflab.config.model import DrawingModelConfig
from difflab.config.request import RequestConfig
from difflab.config.train import TrainConfig
from difflab.console import say, say_on_stderr
from difflab.data.build import class_names_of
from difflab.data.datamodule import ShardDataModule
from difflab.devices import (
    Accelerator,
    choose_algorithms,
    is_first_process,
    on_cuda_only,
    resolve_accelerator,
    sampling_autocast,
    training_precision,
)
from difflab.errors import UserError
from difflab.files import link_or_copy
from difflab.interop.keymap import refuse_misfit, shapes_of
from difflab.machine import MachineError
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.suiting import without_unsuited
from difflab.parts.loading import load_frozen
from difflab.parts.selection import written
from difflab.parts.starting import choose_trained
from difflab.pipelines.base import Pipeline
from difflab.pipelines.build import pipeline_of
from difflab.pipelines.diffusing import DiffusingStage
from difflab.pipelines.evaluating import build_evaluator, reference_of, refuse_other_samples
from difflab.pipelines.stored import load_initial_weights, read_checkpoint
from difflab.seeding import stream_seed
from difflab.signals import shielded
from difflab.tasks.build import build_training_module
from difflab.tasks.noised_module import NoisedModule
from difflab.tasks.training_module import TrainingModule
from difflab.tracking.build import build_loggers
from difflab.tracking.job import Job
from difflab.tracking.rundir import RunDirectory

log = logging.getLogger(__name__)

LIGHTNING_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric")


def fit(
    config: TrainConfig, overrides: list[str], run: RunDirectory, resume: Path | None, said: Sequence[str] = ()
) -> None:
    """Trains in the run directory, from `resume` if there is one.

    A run with all its steps catches up on work that was interrupted after the last one; a complete run is unchanged.

    Records and loggers receive the validated configuration with all its defaults, so that a default changed by another
    version of difflab is noticed when the run is resumed.

    said: messages about values that were read from the data.

    Raises UserError if training cannot continue from `resume`.
    """
    accelerator = resolve_accelerator(config.trainer.accelerator)
    steps = config.trainer.max_steps
    checkpoint = None if resume is None else begun(resume, run)
    finished = resume is not None and checkpoint is not None and is_finished(resume, checkpoint, run, steps)
    owed = owed_at_end(config, run, config.model(), steps) if finished else []
    if finished and not owed:
        if is_first_process():
            say(f"already at step {steps} of {steps}: nothing to train, everything is in {_short(run.path)}")
        return
    layout = layout_of_training(config.trainer.devices, config.trainer.num_nodes, accelerator)
    with contextlib.ExitStack() as stack:
        stack.enter_context(run.log_to_file())
        hush_lightning()
        module = build_module(config, accelerator, initial_weights=resume is None)
        if checkpoint is not None:
            refuse_misfit(checkpoint["state_dict"], shapes_of(written(module)), str(resume))
            refuse_other_training(checkpoint, module, str(resume))
        data = ShardDataModule(
            config.data,
            config.trainer,
            seed=config.seed,
            fields=module.batch_keys(),
            tokenizers=module.tokenizers(),
            empty_captions=module.empty_captions,
            cached=module.cached_fields(),
            in_place_of_images=module.in_place_of_images(),
            made=module.made_fields(),
            whole_batches=module.compares_samples,
        )
        module.refuse_encoded(data.encoded, config.data.path)
        # Runs that cannot be resumed, sampled or evaluated are refused before anything is logged.
        data.refuse_misfits(layout.total)
        pipeline = sampling_pipeline(config, module, accelerator)
        if pipeline is not None and (counts := config.callbacks.measured):
            build_run_evaluator(config, pipeline, counts[0], config.seed).load_extractors()
        if is_first_process():
            for line in said:
                say_on_stderr(line)
            if owed:
                say(f"already at step {steps} of {steps}, but not everything was done there: {', '.join(owed)}")
            if resume is not None and run.owns(resume) and not _same_file(resume, run.last_checkpoint):
                # From now on the run is at this checkpoint, whatever becomes of this start.
                link_or_copy(resume, run.last_checkpoint)
            run.write_records(config.plain(), overrides)
        job = Job.training(run, config.experiment, config.output_root)
        with shielded():
            # A scheduler signals every process of a job; loggers' processes must outlive the last metrics.
            loggers = stack.enter_context(build_loggers(config.logger, run, config.plain(), job))
        others = stack.enter_context(launched(layout.per_node, layout.nodes, by_others=layout.starter != "difflab"))
        trainer = build_trainer(config, accelerator, run, pipeline, loggers, environment_of(layout))
        stack.enter_context(leaving_together(MachineError, NonFiniteError, Preempted))
        stack.enter_context(beating(layout.rank, layout.total, config.trainer.ranks, others))
        stack.enter_context(signals_as_such())
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    if trainer.is_global_zero:
        report(run, module)


def begun(resume: Path, run: RunDirectory) -> dict[str, Any]:
    """Loads the checkpoint from which training continues.

    Raises UserError if it is unreadable; for a run's own checkpoint the message names the newest readable one.
    """
    try:
        return read_checkpoint(resume)
    except UserError as error:
        if not run.owns(resume):
            raise
        older = next((path for _, path in reversed(step_checkpoints(run.checkpoints)) if _is_readable(path)), None)
        instead = "give another name=... to start anew" if older is None else f"continue from resume={_short(older)}"
        raise UserError(f"{str(error).removesuffix('; fetch it again')}; {instead}") from error


def _is_readable(checkpoint: Path) -> bool:
    try:
        read_checkpoint(checkpoint)
    except UserError:
        return False
    return True


def is_finished(resume: Path, checkpoint: dict[str, Any], run: RunDirectory, max_steps: int) -> bool:
    """Whether `resume`, the file of `checkpoint`, is the run's newest and has all the requested steps.

    Raises UserError if it has more, or if it is from another run or an older one and leaves nothing to train.
    """
    step = checkpoint["difflab"]["train_step"]
    if step < max_steps:
        return False
    newest = newest_checkpoint(run.checkpoints)
    is_newest = newest is not None and run.owns(resume) and _step_of(newest) == step
    if step > max_steps or not is_newest:
        raise UserError(
            f"trainer.max_steps={max_steps}, but {_short(resume)} is already at step {step}: "
            "give a larger trainer.max_steps, or another name=... to start anew"
        )
    return True


def refuse_other_training(checkpoint: dict[str, Any], module: TrainingModule, path: str) -> None:
    """Raises UserError if a checkpoint is from a run that trained other parameters than this one."""
    theirs = checkpoint["difflab"].get("optimizers", {})
    ours = {name: list(parameters) for name, parameters in module.trained_by().items()}
    # In order, as Lightning stores optimizer states by position.
    if list(theirs.items()) != list(ours.items()):
        before, now = (sum(len(names) for names in trained.values()) for trained in (theirs, ours))
        raise UserError(
            f"{path} is from a run that trained {before} tensors, this one trains {now}, and not the same "
            f"(init.freeze, init.train): start from its weights instead, as in init=weights init.from={path}"
        )


def build_module(config: TrainConfig, accelerator: Accelerator, *, initial_weights: bool = True) -> TrainingModule:
    """Builds the module with its initial weights, the same on every rank, in the memory layout of the device.

    initial_weights: False if a checkpoint replaces them anyway; those of `init` need not exist any more.
    """
    torch.manual_seed(stream_seed(config.seed, "init"))
    module = build_training_module(config)
    if config.init.kind == "weights":
        lines = load_initial_weights(module, config.init) if initial_weights else []
        for line in lines + choose_trained(module, config.init):
            log.info(line)
            if is_first_process():
                say_on_stderr(line)
    load_frozen(module)
    module.trained_by()  # refuses an optimizer with nothing to train
    for network in module.networks():
        if on_cuda_only(config.trainer.channels_last, accelerator):
            network.to(memory_format=torch.channels_last)
        if on_cuda_only(config.trainer.compile, accelerator):
            network.compile()
    return module


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


def with_checked_evaluation(config: TrainConfig, overrides: Sequence[str]) -> TrainConfig:
    """The configuration with the metrics that its data supports; the others are reported and left out.

    Raises UserError if the evaluations of this run would be impossible, according to its configuration and data.
    """
    if not config.callbacks.measured:
        return config
    metrics, left_out = without_unsuited(config.metrics, config.data, overrides, image_size=config.data.image_size)
    if all(metric is None for metric in metrics.values()):
        raise UserError("callbacks.evaluation has no metrics: choose some, or set callbacks.evaluation=null")
    model = config.model()
    classes = model.classes if isinstance(model, DrawingModelConfig) else None
    refuse_other_samples(metrics, model.shape, classes, class_names_of(config.data))
    for n in config.callbacks.measured:
        reference_of(metrics, n, config.data, config.data.train_split)
    if is_first_process():
        for line in left_out:
            say_on_stderr(f"note: {line}")
    return config.model_copy(update={"metrics": metrics})


def build_run_evaluator(
    config: TrainConfig, pipeline: Pipeline, n: int, seed: int, rank: int = 0, world_size: int = 1
) -> Evaluator:
    """The evaluator of samples 0..n-1 of a seed during training, of which process `rank` has its share.

    Raises UserError if a metric cannot be computed on them.
    """
    return build_evaluator(
        config.metrics,
        pipeline,
        n=n,
        seed=seed,
        weights="ema" if config.callbacks.averages else "raw",
        data=config.data,
        split=config.data.train_split,
        class_names=class_names_of(config.data),
        rank=rank,
        world_size=world_size,
    )


def sampling_pipeline(config: TrainConfig, module: TrainingModule, accelerator: Accelerator) -> Pipeline | None:
    """The pipeline of the sample grid and the evaluation during training, with the run's own sampler and guidance.

    None if the task is not generative. Captions, and the images that an upsampler enlarges, are from the validation
    split, if there is one.
    Raises UserError for a guidance with additional networks, which are not available in training.
    """
    model = config.model()
    if not isinstance(model, DrawingModelConfig):
        return None
    if model.guidance.guides:
        raise UserError(
            f"guidance.kind={model.guidance.kind} needs another network: train with guidance=none or classifier_free "
            "alone, and use it in `difflab sample` and `difflab evaluate`"
        )
    assert isinstance(module, NoisedModule), "diffusion models train on noised images"
    stages = {
        "single": DiffusingStage(
            module.network,
            module.conditioners,
            module.process,
            model.shape,
            sampler=model.sampler,
            guidance=model.guidance,
            first_stage=module.first_stage,
            class_names=model.class_names,
            autocast=sampling_autocast("auto", accelerator),
        )
    }
    split = config.data.val_split or config.data.train_split
    return pipeline_of(stages, RequestConfig(), data=config.data, split=split)


def hush_lightning() -> None:
    """Sends Lightning's remarks (devices found, products to try) to log.txt only; its warnings are shown."""
    # Lightning 2.6 uses a function of torch's pytree that torch has renamed.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated")
    # Shown wherever SLURM is installed, even outside of its jobs; difflab starts the processes itself.
    warnings.filterwarnings("ignore", message=r".*`srun` command is available")
    for name in LIGHTNING_LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.WARNING)


def report(run: RunDirectory, module: TrainingModule) -> None:
    """Shows where everything of a finished run is stored."""
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


@contextlib.contextmanager
def signals_as_such() -> Iterator[None]:
    """Restores a signal that Lightning turns into SystemExit(1), which looks like a crash."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


def _step_of(checkpoint: Path) -> int:
    return read_checkpoint(checkpoint)["difflab"]["train_step"]


def _same_file(path: Path, other: Path) -> bool:
    return other.is_file() and path.samefile(other)


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
