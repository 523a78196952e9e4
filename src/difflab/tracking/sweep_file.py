"""W&B sweep files: a grid of parameters, each point of which is a `difflab` command."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.validate import validate
from difflab.errors import UserError, in_one_line
from difflab.tracking.sweep_point import SweepPoint, as_number, given_again, sweep_points
from difflab.tracking.sweep_table import Value, shown

COMMANDS = ("train", "sample", "evaluate", "likelihood", "accuracy", "zero-shot", "retrieval", "probe", "schedule")
LEFT_OUT = ("${env}", "${interpreter}")
"""What W&B puts before the program; a process started from here needs neither."""
ARGUMENTS = "${args_no_hyphens}"


class SweepMetric(Config):
    """The metric of a sweep, under its logged name (`eval/fd-lite0@512`)."""

    name: str
    goal: Literal["minimize", "maximize"] = "minimize"


class SweepParameter(Config):
    """One parameter: `value`, the same at every point, or `values`, one axis of the grid.

    Lists are written as W&B passes them on, in brackets; null is written "null", in quotes, because W&B would pass
    None.
    """

    value: Any = None
    values: list[Any] | None = Field(default=None, min_length=1)
    distribution: Literal["constant", "categorical"] | None = None

    @model_validator(mode="after")
    def _either(self) -> SweepParameter:
        if ("value" in self.model_fields_set) == ("values" in self.model_fields_set):
            raise ValueError("give either value (the same at every point) or values (a list of them)")
        for value in self.choices:
            if value is None:
                raise ValueError('W&B cannot pass null on; write "null" in quotes')
            if isinstance(value, dict):
                raise ValueError(f"{value} is a mapping; give each of its keys as a parameter, as in a.b")
        if again := given_again([_value(value) for value in self.choices]):
            one, other = (self.choices[place] for place in again)
            raise ValueError(f"{one!r} and {other!r} are the same value; give each once")
        return self

    @property
    def choices(self) -> list[Any]:
        return [self.value] if self.values is None else self.values


class SweepConfig(Config):
    """A sweep file, restricted to the W&B keys that have a meaning in a grid of difflab commands."""

    program: Literal["difflab"]
    method: str
    name: str | None = None
    description: str | None = None
    project: str | None = None
    entity: str | None = None
    metric: SweepMetric | None = None
    parameters: dict[str, SweepParameter] = Field(min_length=1)
    command: list[str]

    @model_validator(mode="after")
    def _can_run(self) -> SweepConfig:
        if self.method != "grid":
            raise ValueError(
                f"method={self.method} takes its points from a W&B server: start it with `wandb sweep` and "
                "`wandb agent`; here only method: grid runs"
            )
        words = self.words
        if words[:1] not in (["${program}"], ["difflab"]) or len(words) < 2 or words[1] not in COMMANDS:
            raise ValueError(f"command must be ${{env}}, ${{program}}, then one of {', '.join(COMMANDS)}")
        if words.count(ARGUMENTS) != 1:
            raise ValueError(f"command must have {ARGUMENTS} once: difflab takes key=value")
        for word in words[2:]:
            if word != ARGUMENTS and (word.startswith("$") or "=" not in word):
                raise ValueError(f"command has {word!r}, which is not key=value; leave it out")
            if "${envvar:" in word:
                raise ValueError(f"command has {word!r}, which only W&B's agent fills in; write its value")
        return self

    @property
    def words(self) -> list[str]:
        """The command without what W&B puts before the program."""
        return [word for word in self.command if word not in LEFT_OUT]


@dataclass(frozen=True)
class Sweep:
    """A sweep file; `name` is its own, or that of the file."""

    name: str
    config: SweepConfig

    @property
    def command(self) -> str:
        return self.config.words[1]

    @property
    def swept(self) -> list[str]:
        """The parameters with several values; all of them if none has."""
        parameters = self.config.parameters
        return [key for key, parameter in parameters.items() if len(parameter.choices) > 1] or list(parameters)

    def points(self, overrides: Sequence[str] = ()) -> list[SweepPoint]:
        """Every point of the grid. `overrides` (key=value) are appended and replace the file's fixed values.

        Raises UserError for an override of a parameter that is swept, or that is invalid.
        """
        replaced = {_key_of(override) for override in overrides}
        for key in replaced & set(self.swept):
            raise UserError(f"{key} is what this sweep varies; change its values in the file, or leave it out here")
        kept = {key: parameter.choices for key, parameter in self.config.parameters.items() if key not in replaced}
        grid = [dict(zip(kept, choice)) for choice in itertools.product(*kept.values())]
        swept = [{key: _value(point[key]) for key in self.swept if key in point} for point in grid]
        arguments = [(*self._arguments(point, replaced), *overrides) for point in grid]
        return sweep_points(self.command, swept, arguments)

    def _arguments(self, point: Mapping[str, Any], replaced: set[str]) -> list[str]:
        arguments = []
        for word in self.config.words[2:]:
            if word == ARGUMENTS:
                arguments += [f"{key}={_text(value)}" for key, value in point.items()]
            elif _key_of(word) not in replaced:
                arguments.append(word)
        return arguments


def read_sweep(path: Path | str) -> Sweep:
    """Reads a W&B sweep file. Raises UserError if it is invalid, or cannot be run without a server."""
    path = Path(path)
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}; give a sweep file, as in sweeps/ddim_steps.yaml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    # Besides invalid YAML: bytes that are no text, invalid dates, brackets that nest too deep.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not YAML: {in_one_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a sweep file: it has no keys")
    try:
        config = validate(SweepConfig, content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Sweep(config.name or path.stem, config)


def _key_of(override: str) -> str:
    key, equals, _ = override.partition("=")
    if not key or not (equals or override.startswith("~")):
        raise UserError(f"{override!r} is not key=value")
    return key.lstrip("+~")


def _text(value: Any) -> str:
    """A value in Hydra's own notation."""
    return f"[{','.join(map(_text, value))}]" if isinstance(value, list) else shown(value)


def _value(value: Any) -> Value:
    """A value as it appears in a table; YAML reads 1e-3 as text, but it is a number."""
    if isinstance(value, str):
        return as_number(value)
    return _text(value) if isinstance(value, list) else value
