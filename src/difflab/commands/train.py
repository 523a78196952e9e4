"""`difflab train`: assembles a run from its configuration, trains it, and shows where everything is stored."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from difflab.commands.hydra_app import run_app
from difflab.config.identity import NAMES, differences, identity, name_identity
from difflab.config.learning import TrainingTexts
from difflab.config.stored import read_train_config
from difflab.config.train import TrainConfig
from difflab.console import say_on_stderr
from difflab.deferred import defer_imports
from difflab.errors import UserError
from difflab.signals import Stopped

if TYPE_CHECKING:
    from difflab.tracking.rundir import RunDirectory

CHANGES_SHOWN = 3


def main(argv: Sequence[str]) -> int:
    run_app("train", TrainConfig, argv, lambda config, plain, overrides: train(config, overrides, plain.said))
    return 0


def train(config: TrainConfig, overrides: list[str], said: Sequence[str] = ()) -> None:
    """Trains until `trainer.max_steps`; an interrupted run continues where it stopped.

    said: messages about values that were read from the data.

    Raises SystemExit if a signal stopped it (see callbacks.preemption), and UserError if another process is training
    this run.
    """
    defer_imports()

    from difflab.callbacks.preemption import Preempted
    from difflab.commands.machine import refuse_more_than_there_is
    from difflab.commands.training import fit
    from difflab.commands.training_evaluation import with_checked_evaluation
    from difflab.data.build import build_dataset, with_class_names
    from difflab.data.sampling import GlobalBatches
    from difflab.devices import is_first_process
    from difflab.frozen_files import with_recorded_parts
    from difflab.lock import locked
    from difflab.tracking.rundir import RunDirectory

    # Missing devices, missing or unfit data, and evaluations that are impossible on it are found before anything is
    # written.
    refuse_more_than_there_is(config.trainer, config.data)
    images = build_dataset(config.data, split=config.data.train_split)
    config = config.model_copy(update={"data": with_class_names(config.data)})
    GlobalBatches(len(images), config.data.batch_size, seed=config.seed)
    config = with_recorded_parts(with_checked_evaluation(config, overrides).described())
    config.logger.refuse_unusable()
    run = RunDirectory.of_run(config.output_root, config.experiment, config.name, identity=name_identity(config))
    config = completed(config, run)
    run.path.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if is_first_process():
            stack.enter_context(locked(run.path, "is being trained", "give this one another name=..."))
        resume = beginning_of(run, config)
        try:
            fit(config, overrides, run, resume, [*said, *config.remarks(len(images))])
        except Preempted as stop_requested:
            if not is_first_process():
                # The first process reports for all; a launcher would end it if another one failed before it.
                raise SystemExit(0) from None
            say_on_stderr(f"difflab train: {stop_requested}")
            raise
        except Stopped as stop:
            last = run.last_checkpoint
            stop.add_note(
                f"{last} is unchanged" if last.is_file() else "no step was taken, so there is nothing to save"
            )
            raise


def completed(config: TrainConfig, run: RunDirectory) -> TrainConfig:
    """The configuration with what its task learns before training: from texts, or taken over with weights.

    Raises UserError if there are no texts, or if a checkpoint of another run is of a model that is used otherwise.
    """
    from difflab.checkpoints import newest_checkpoint
    from difflab.config.init import WeightsInitConfig
    from difflab.data.contents import captions_of, phrases_of
    from difflab.pipelines.stored import model_of_source, refuse_other_use

    earlier, said = None, ""
    if config.resume != "never" and newest_checkpoint(run.checkpoints) is not None:
        earlier = read_train_config(run.config).model()
    elif config.resume not in ("auto", "must", "never"):
        beside = Path(config.resume).expanduser().parent.parent / "config.yaml"
        earlier, said = read_train_config(beside).model() if beside.is_file() else None, f"resume={config.resume}"
    elif isinstance(config.init, WeightsInitConfig):
        earlier, said = model_of_source(config.init), f"init.from={config.init.source}"
    data, split = config.data, config.data.train_split
    texts = TrainingTexts(captions=lambda: captions_of(data, split), phrases=lambda: phrases_of(data))
    config = config.completed(texts, earlier)
    if said and earlier is not None:
        refuse_other_use(said, earlier.untold, config.model().untold)
    return config


def beginning_of(run: RunDirectory, config: TrainConfig) -> Path | None:
    """The checkpoint from which training resumes; None if it starts from scratch.

    Raises UserError if the directory contains another run, or the run would lose its training progress.
    """
    from difflab.checkpoints import newest_checkpoint

    own = newest_checkpoint(run.checkpoints)
    # Without a checkpoint there is nothing to mix up: a failed first try may be fixed and started again.
    if own is None or config.resume == "never":
        return run.checkpoint_to_resume(config.resume)
    stored = read_train_config(run.config)
    refuse_another_run(stored, config, run.path)
    if config.resume in ("auto", "must"):
        return own
    if config.resume == stored.resume:
        # The run started from this checkpoint, or was reset to it: the same command again, such as after a requeue.
        return own
    requested = run.checkpoint_to_resume(config.resume)
    if requested is not None and not run.owns(requested):
        raise UserError(
            f"resume={config.resume}, but {run.path} has its own checkpoints: use resume=auto to continue from "
            "those, or another name=... to start from that one"
        )
    return requested


def refuse_another_run(stored: TrainConfig, requested: TrainConfig, path: Path) -> None:
    """Raises UserError if a directory contains a run with another model, data or optimizer than requested."""
    changes = [
        (key, old, new)
        for key, old, new in differences(identity(stored), identity(requested))
        if not (key == NAMES and None in (old, new))
    ]
    if not changes:
        return
    shown = ", ".join(f"{key} was {old!r}, is {new!r}" for key, old, new in changes[:CHANGES_SHOWN])
    more = f" and {len(changes) - CHANGES_SHOWN} more" if len(changes) > CHANGES_SHOWN else ""
    raise UserError(f"{path} contains a run with another configuration ({shown}{more}); give this one another name=...")
