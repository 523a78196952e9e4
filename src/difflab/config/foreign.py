"""The plugins behind a configuration, recorded with it so that one that is missing later can be named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from difflab.config import plugins
from difflab.config.base import Config
from difflab.config.registry import Names
from difflab.config.slots import OWN, Slots


class PluginRecord(Config):
    """A package that provides choices of a configuration.

    version: the installed version. kinds: the choices, by their key.
    """

    version: str
    kinds: dict[str, str]


NOT_INSTALLED = "which is not installed: install it"
"""How each message ends that says which package a choice comes with."""

PluginRecords = dict[str, PluginRecord]
"""Plugin records by the name of the distribution, as in pip."""


class RecordedConfig(Config):
    """A configuration that is stored together with the packages that provide its choices.

    plugins: the packages at its first validation; filled in automatically.
    """

    plugins: PluginRecords = Field(default_factory=dict)

    @model_validator(mode="after")
    def _plugins_are_recorded(self) -> Self:
        if not self.plugins:
            # The model is frozen otherwise.
            object.__setattr__(self, "plugins", records_of(self))
        return self


def records_of(config: Config) -> PluginRecords:
    """The packages that provide the choices that are not difflab's own, at any depth."""
    found: dict[str, PluginRecord] = {}
    for key, choice, package in _choices(config, ""):
        if package == OWN:
            continue
        plugin = plugins.owner(package)
        name, version = (package, "unknown") if plugin is None else (plugin.distribution, plugin.version)
        kinds = found[name].kinds if name in found else {}
        found[name] = PluginRecord(version=version, kinds={**kinds, key: choice})
    return found


def missing(content: Mapping[str, Any], key: str) -> str | None:
    """The package to install for the choice at `key` of plain contents, as recorded there; None if none is recorded."""
    recorded = content.get("plugins")
    for name, record in recorded.items() if isinstance(recorded, Mapping) else ():
        kinds = record.get("kinds") if isinstance(record, Mapping) else None
        if isinstance(kinds, Mapping) and key in kinds:
            return f"{name} {record.get('version', '')}".strip()
    return None


def _choices(value: Any, key: str) -> Iterator[tuple[str, str, str]]:
    """Yields (key, name, top-level package) of every choice."""
    prefix = f"{key}." if key else ""
    if isinstance(value, Config):
        if isinstance(kind := getattr(value, "kind", None), str):
            yield key, kind, type(value).__module__.partition(".")[0]
        if isinstance(value, RecordedConfig) and isinstance(task := getattr(value, "task", None), str):
            yield f"{prefix}task", task, type(value).__module__.partition(".")[0]
        slots = value.slots() if isinstance(value, Slots) else {}
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            if name in slots and inner not in (None, False):
                yield f"{prefix}{name}", name, slots[name].package
            for axis in field.metadata:
                if isinstance(axis, Names):
                    yield f"{prefix}{name}", inner, axis.package(inner)
            yield from _choices(inner, f"{prefix}{name}")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _choices(inner, f"{prefix}{name}")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _choices(inner, f"{prefix}{place}")
