"""Reads the configuration of a run from its config.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from difflab.config.foreign import NOT_INSTALLED
from difflab.config.train import TrainConfig
from difflab.config.validate import validate
from difflab.errors import UserError

ANOTHER_NAME = "restore it from a copy (config.1.yaml is that of an earlier start), or use another run"


def read_config(path: Path) -> dict[str, Any]:
    """The plain contents of a config.yaml.

    Raises UserError if the file is missing or holds no configuration.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} is not a run directory: it has no {path.name}")
    try:
        content = yaml.safe_load(path.read_bytes().decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        raise UserError(f"{path}{line} cannot be read as YAML; {ANOTHER_NAME}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} is not a configuration; {ANOTHER_NAME}")
    return content


def read_train_config(path: Path) -> TrainConfig:
    """The configuration that a run was started with, with today's defaults for missing keys.

    Raises UserError if it is missing or unknown to this version of difflab.
    """
    content = read_config(path)
    try:
        return validate(TrainConfig, content)
    except UserError as error:
        another = "" if NOT_INSTALLED in str(error) else ", written by another version of difflab or changed since"
        raise UserError(f"{path}{another}: {error}") from error
