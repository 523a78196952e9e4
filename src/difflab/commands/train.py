"""`difflab train`: assemble a run from its configuration, train it, and say where everything lies."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

from difflab.commands.hydra_app import run_app
from difflab.config.train import TrainConfig, run_defining
from difflab.errors import UserError
from difflab.signals import Stopped

CHANGES_SHOWN = 3


def main(argv: Sequence[str]) -> int:
    run_app("train", TrainConfig, argv, train)
    return 0


def train(config: TrainConfig, plain: dict[str, Any], overrides: list[str]) -> None:
    """Train until `trainer.max_steps`; an interrupted run goes on where it stopped.

    Raises SystemExit where a signal told it to stop (see callbacks.preemption), and UserError where another process
    trains this run.
    """
    from difflab.callbacks.preemption import Preempted
    from difflab.commands.training import fit
    from difflab.data.build import build_dataset
    from difflab.lock import locked
    from difflab.models.devices import is_first_process
    from difflab.tracking.rundir import RunDirectory

    # Data that is missing or does not fit is found before anything is written.
    build_dataset(config.data, split=config.data.train_split)
    run = RunDirectory.create(config.output_root, config.experiment, config.name, identity=run_defining(plain))
    with contextlib.ExitStack() as stack:
        if is_first_process():
            stack.enter_context(locked(run.path, "is being trained", "give this one another name=..."))
        resume = run.checkpoint_to_resume(config.resume)
        # Without a checkpoint there is nothing to mix up: a first try that failed may be mended and started again.
        if resume is not None and run.config.is_file():
            refuse_another_run(run_defining(run.read_config()), run_defining(plain), str(run.path))
        try:
            fit(config, plain, overrides, run, resume)
        except Preempted as told_to_stop:
            if not is_first_process():
                # The first process speaks for all; a launcher would end it where another one fails before it.
                raise SystemExit(0) from None
            sys.stderr.write(f"difflab train: {told_to_stop}\n")
            raise
        except Stopped as stop:
            last = run.last_checkpoint
            stop.add_note(f"{last} is as it was" if last.is_file() else "no step was taken, nothing is to be saved")
            raise


def refuse_another_run(stored: dict[str, Any], asked: dict[str, Any], path: str) -> None:
    """Raises UserError where a directory holds a run whose model, data or optimizer differ from what is asked for."""
    changes = list(differences(stored, asked))
    if not changes:
        return
    shown = ", ".join(f"{key} was {old!r}, is {new!r}" for key, old, new in changes[:CHANGES_SHOWN])
    more = f" and {len(changes) - CHANGES_SHOWN} more" if len(changes) > CHANGES_SHOWN else ""
    raise UserError(f"{path} holds a run with another configuration ({shown}{more}); give this one another name=...")


def differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of every leaf that differs between two nested mappings."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for name in [*old, *(n for n in new if n not in old)]
            for change in differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
        ]
    return [] if old == new else [(key, old, new)]
