"""The defaults of every kind as a choice that YAML files start from, so that these only state what differs.

A file of the group `sampler` with `defaults: [euler_defaults, _self_]` has all keys of `kind: euler`. For groups of
named parts, `callbacks_defaults` has a key for each callback, and `ema_defaults` the options of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from difflab.config.base import Config, fields_by_key
from difflab.config.registry import Kind, Part, Parts, Registry
from difflab.config.slots import Slots

SUFFIX = "_defaults"
PART_SUFFIX = "_options"
"""The suffix for the options of a part: `composed.yaml` has the keys of `classifier_options` below `classifier`."""
MISSING = "???"
"""The placeholder in a file for a value that must be given."""


def defaults_of(kind: Kind) -> dict[str, Any]:
    """Every key of a kind with its default, as in YAML; `???` if there is none."""
    return {"kind": kind.name} | {key: value for key, value in options_of(kind.config).items() if key != "kind"}


def options_of(config: type[Config]) -> dict[str, Any]:
    """Every key of a configuration with its default, as in YAML; `???` if there is none."""
    config = config.complete()
    return {key: _default(config, name) for key, name in fields_by_key(config).items()}


def default_choices(axes: Iterable[Registry], parts: Iterable[Parts] = ()) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields (group, choice, contents) of every kind of `axes`, and of `parts` as a whole and one by one."""
    for several in parts:
        yield several.group, f"{several.group}{SUFFIX}", {name: _part_default(part) for name, part in several.items()}
        for name, part in several.items():
            if not part.switch:
                yield several.group, f"{name}{SUFFIX}", options_of(part.config)
    for axis in axes:
        for name, kind in axis.items():
            yield axis.group, f"{name}{SUFFIX}", defaults_of(kind)
        for part, config in _parts_of(axis).items():
            yield axis.group, f"{part}{PART_SUFFIX}", options_of(config)


def _part_default(part: Part) -> Any:
    if part.switch:
        return part.default
    return options_of(part.config) if part.default else None


def _parts_of(axis: Registry) -> dict[str, type[Config]]:
    """The options of the slots of its kinds, by key."""
    slotted = [kind.config for kind in axis.values() if issubclass(kind.config, Slots)]
    return {name: slot.options for config in slotted for name, slot in config.slots().items() if slot.options}


def groups_below(axis: Registry, kind: Kind) -> dict[str, tuple[Registry, str]]:
    """The keys of a kind that have a subgroup of their own: each with its axis and its default kind."""
    found = {}
    for key, name in fields_by_key(kind.config).items():
        field = kind.config.complete().model_fields[name]
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
