"""A point of a sweep checked like the command it is, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from difflab.commands.composing import compose_and_validate
from difflab.tracking.rundir import RunDirectory


def folder_of(command: str, arguments: Sequence[str]) -> Path:
    """The folder where `difflab <command> <arguments>` keeps its records. Writes nothing.

    Raises UserError, as the command would, for arguments that are no valid configuration.
    """
    if command == "train":
        return _training_folder(arguments)
    return _drawing_folder(command, arguments)


def _training_folder(arguments: Sequence[str]) -> Path:
    from difflab.config.train import TrainConfig
    from difflab.tracking.rundir import run_name

    config, _ = compose_and_validate("train", TrainConfig, arguments)
    assert config.name is not None, "a training of a sweep has a name"
    return RunDirectory(Path(config.output_root) / config.experiment / run_name(config.name, None)).path


def _drawing_folder(command: str, arguments: Sequence[str]) -> Path:
    from difflab.commands.run_defaults import with_defaults_of_run
    from difflab.config.sample import EvaluateConfig, SampleConfig

    model = EvaluateConfig if command == "evaluate" else SampleConfig
    complete = with_defaults_of_run(arguments, data=command == "evaluate")
    config, _ = compose_and_validate(command, model, complete)
    assert config.out is not None, "a drawing of a sweep has a folder"
    return RunDirectory(config.out).path
