"""The defaults of every kind as a choice that files begin with, so that these state what is different alone.

A file of the group `sampler` that says `defaults: [euler_defaults, _self_]` has all keys of `kind: euler`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from difflab.config.base import Config, fields_by_key
from difflab.config.registry import Kind, Registry

SUFFIX = "_defaults"
MISSING = "???"
"""What stands in a file for a value that has to be given."""


def defaults_of(kind: Kind) -> dict[str, Any]:
    """Every key of a kind with its default, as YAML has it; `???` where there is none."""
    return {"kind": kind.name} | {
        key: _default(kind.config, name) for key, name in fields_by_key(kind.config).items() if name != "kind"
    }


def default_choices(axes: Iterator[Registry] | tuple[Registry, ...]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(group, choice, contents) of every kind of the axes that are chosen by files."""
    for axis in axes:
        for name, kind in axis.items():
            yield axis.group, f"{name}{SUFFIX}", defaults_of(kind)


def groups_below(axis: Registry, kind: Kind) -> dict[str, tuple[Registry, str]]:
    """The keys of a kind that are chosen by files of a group below its own: each with its axis and its default kind."""
    found = {}
    for key, name in fields_by_key(kind.config).items():
        field = kind.config.model_fields[name]
        for inner in field.metadata:
            if isinstance(inner, Registry) and inner.group == f"{axis.group}/{key}" and not field.is_required():
                found[key] = inner, _default(kind.config, name)["kind"]
    return found


def _default(config: type[Config], name: str) -> Any:
    field = config.model_fields[name]
    if field.is_required():
        return MISSING
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return MISSING
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.plain()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return to_jsonable_python(value)
