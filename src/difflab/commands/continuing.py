"""Where a training continues: its checkpoint, whether anything is left to do, whether it is of the same training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from difflab.checkpoints import newest_checkpoint, step_checkpoints
from difflab.console import short_path
from difflab.errors import UserError
from difflab.pipelines.stored import read_checkpoint
from difflab.tasks.training_module import TrainingModule
from difflab.tracking.rundir import RunDirectory


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
        instead = (
            "give another name=... to start anew" if older is None else f"continue from resume={short_path(older)}"
        )
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
            f"trainer.max_steps={max_steps}, but {short_path(resume)} is already at step {step}: "
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


def _step_of(checkpoint: Path) -> int:
    return read_checkpoint(checkpoint)["difflab"]["train_step"]
