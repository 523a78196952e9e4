"""The keys of a configuration with their defaults and descriptions, as listed by `--help` and docs/configuration.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from difflab.config import axes
from difflab.config.base import Config, complete, fields_by_key, summary_of
from difflab.config.defaults import MISSING, options_of
from difflab.config.described import described, named_in
from difflab.config.places import annotation_of, models_in
from difflab.config.registry import Registry
from difflab.config.slots import PartsConfig, Slots

T = TypeVar("T")
Row = tuple[str, str]
"""(default, description)."""


REQUIRED = "required"
"""Shown in place of a default if there is none."""


def rows(config: type[Config]) -> dict[str, Row]:
    """The default and the description of each key of a configuration except `kind`."""
    defaults = options_of(config)
    return {key: (in_words(defaults[key]), text) for key, text in said_of(config).items() if key != "kind"}


def said_of(config: type[BaseModel]) -> dict[str, str]:
    """The description of each key of a configuration: its own, or else that of its type."""
    config = complete(config)
    said = described(config)
    return {
        key: summary_of(config) if key == "kind" else said.get(name) or _of_type(config, name)
        for key, name in fields_by_key(config).items()
    }


def shared(several: Sequence[Mapping[str, T]]) -> dict[str, T]:
    """The entries that are the same in all of several configurations; empty if there is only one."""
    first, *others = several or [{}]
    return {key: row for key, row in first.items() if all(other.get(key) == row for other in others)} if others else {}


def key_lines(config: type[Config]) -> Iterator[str]:
    """Yields `key=default  description` for every key except `kind`, aligned; `...` marks a required value."""
    said = said_of(config)
    shown = {key: f"{key}={_as_written(value)}" for key, value in options_of(config).items() if key != "kind"}
    width = max(map(len, shown.values()), default=0)
    for key, assignment in shown.items():
        yield f"  {assignment:{width}}  {said[key]}".rstrip()


def said_of_axes() -> dict[str, str]:
    """The description of each axis, by its group or, for words, by the option they set."""
    said = named_in(axes.__name__)
    # The signature of builders only concerns authors of new choices.
    texts = {id(getattr(axes, name)): text.partition(" Builders:")[0] for name, text in said.items()}
    named = {axis.group: axis for axis in (*axes.AXES, *axes.PARTS, *axes.UNFILED)} | {
        names.what: names for names in axes.NAMES
    }
    return {name: texts[id(axis)] for name, axis in named.items()}


def in_words(value: Any) -> str:
    """A value as written on the command line; `???` is a required one."""
    if value == MISSING:
        return REQUIRED
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {in_words(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(in_words, value)) + "]"
    return str(value)


def _as_written(default: Any) -> str:
    if default == MISSING:
        return "..."
    return default if isinstance(default, str) and default.isidentifier() else json.dumps(default)


def _of_type(config: type[BaseModel], name: str) -> str:
    field = config.model_fields[name]
    if issubclass(config, PartsConfig) and name in config.axis:
        return config.axis[name].summary
    if issubclass(config, Slots) and name in config.slots():
        return f"The options of `{name}`, or null."
    for axis in field.metadata:
        if isinstance(axis, Registry):
            return said_of_axes()[axis.group]
    if inside := models_in(annotation_of(field)):
        return summary_of(inside[0]) if len(inside) == 1 else ""
    return ""
