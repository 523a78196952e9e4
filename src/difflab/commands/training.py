"""Trains a run: module, data, callbacks and loggers put together."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from difflab.callbacks.build import owed_at_end
from difflab.callbacks.guard import NonFiniteError
from difflab.callbacks.preemption import Preempted
from difflab.commands.continuing import begun, is_finished, refuse_other_training
from difflab.commands.heartbeat import beating
from difflab.commands.launching import launched
from difflab.commands.processes import environment_of, layout_of_training, leaving_together
from difflab.commands.trainer import build_trainer, hush_lightning, signals_as_such
from difflab.commands.training_evaluation import build_run_evaluator, sampling_pipeline
from difflab.config.train import TrainConfig
from difflab.console import say, say_on_stderr, short_path
from difflab.data.datamodule import ShardDataModule
from difflab.devices import Accelerator, is_first_process, on_cuda_only, resolve_accelerator
from difflab.files import link_or_copy
from difflab.interop.keymap import refuse_misfit, shapes_of
from difflab.machine import MachineError
from difflab.parts.loading import load_frozen
from difflab.parts.selection import written
from difflab.parts.starting import choose_trained
from difflab.pipelines.stored import load_initial_weights
from difflab.seeding import stream_seed
from difflab.signals import shielded
from difflab.tasks.build import build_training_module
from difflab.tasks.training_module import TrainingModule
from difflab.tracking.build import build_loggers
from difflab.tracking.job import Job
from difflab.tracking.rundir import RunDirectory

_log = logging.getLogger(__name__)


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
            say(f"already at step {steps} of {steps}: nothing to train, everything is in {short_path(run.path)}")
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


def build_module(config: TrainConfig, accelerator: Accelerator, *, initial_weights: bool = True) -> TrainingModule:
    """Builds the module with its initial weights, the same on every rank, in the memory layout of the device.

    initial_weights: False if a checkpoint replaces them anyway; those of `init` need not exist any more.
    """
    torch.manual_seed(stream_seed(config.seed, "init"))
    module = build_training_module(config)
    if config.init.kind == "weights":
        lines = load_initial_weights(module, config.init) if initial_weights else []
        for line in lines + choose_trained(module, config.init):
            _log.info(line)
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
            say(f"  {name:<9} {short_path(path)}")


def _same_file(path: Path, other: Path) -> bool:
    return other.is_file() and path.samefile(other)
