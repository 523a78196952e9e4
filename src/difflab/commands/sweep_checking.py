"""Checks a point of a sweep like its command, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difflab.commands.command import Command
from difflab.commands.composing import compose_and_validate
from difflab.tracking.rundir import RunDirectory


def folder_of(command: str, arguments: Sequence[str]) -> Path:
    """The folder where `difflab <command> <arguments>` stores its records. Writes nothing.

    Raises UserError, as the command would, for arguments that are not a valid configuration.
    """
    if command == "train":
        return _training_folder(arguments)
    return _working_folder(command, arguments)


def _training_folder(arguments: Sequence[str]) -> Path:
    from difflab.config.train import TrainConfig
    from difflab.tracking.rundir import run_name

    config, _ = compose_and_validate("train", TrainConfig, arguments, checking=True)
    assert config.name is not None, "a training of a sweep has a name"
    return RunDirectory(Path(config.output_root) / config.experiment / run_name(config.name, None)).path


def _working_folder(name: str, arguments: Sequence[str]) -> Path:
    command = command_called(name, arguments)
    config, _ = compose_and_validate(command.primary, command.config, command.complete(arguments))
    assert config.out is not None, "a point of a sweep has a folder"
    return RunDirectory(config.out).path


def command_called(name: str, arguments: Sequence[str]) -> Command[Any]:
    """The command of `difflab <name> <arguments>`, for commands on stored models."""
    from difflab.commands.accuracy import ACCURACY
    from difflab.commands.evaluate import command_of
    from difflab.commands.likelihood import LIKELIHOOD
    from difflab.commands.probe import PROBE
    from difflab.commands.retrieval import RETRIEVAL
    from difflab.commands.sample import SAMPLE
    from difflab.commands.schedule import SCHEDULE
    from difflab.commands.zero_shot import ZERO_SHOT

    if name == "evaluate":
        return command_of(arguments)
    commands: list[Command[Any]] = [SAMPLE, LIKELIHOOD, ACCURACY, SCHEDULE, ZERO_SHOT, RETRIEVAL, PROBE]
    return {command.name: command for command in commands}[name]
