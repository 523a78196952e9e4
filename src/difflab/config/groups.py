"""The configuration groups and their choices: the files in the conf folders of difflab and of plugins."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from difflab.conf_dir import conf_dir
from difflab.config import plugins
from difflab.config.axes import AXES, PARTS
from difflab.config.defaults import default_choices
from difflab.errors import UserError


def conf_dirs() -> tuple[Path, ...]:
    """The folders of configuration groups, difflab's own first.

    Raises UserError if two of them contain the same file.
    """
    own, with_conf = conf_dir(), [plugin for plugin in plugins.load() if plugin.conf is not None]
    # Called for every override, so the files are only listed if there is more than one folder to compare.
    owners = dict.fromkeys(_files(own), "difflab") if with_conf else {}
    folders = [own]
    for plugin in with_conf:
        assert plugin.conf is not None
        for path in _files(plugin.conf):
            if path in owners:
                raise UserError(
                    f"conf/{path} comes with both {owners[path]} and {plugin}; rename it in one of them, or uninstall "
                    f"{plugin.distribution}"
                )
            owners[path] = str(plugin)
        folders.append(plugin.conf)
    return tuple(folders)


def is_group(name: str) -> bool:
    """Whether `name=` selects a file."""
    return bool(name) and any((folder / name).is_dir() for folder in conf_dirs())


def choices_of(group: str) -> list[str]:
    """The names that `group=` accepts, sorted."""
    return sorted(
        path.relative_to(folder / group).with_suffix("").as_posix()
        for folder in conf_dirs()
        for path in (folder / group).rglob("*.yaml")
    )


def choice_file(group: str, name: str) -> Path | None:
    """The file of a choice, None if there is none."""
    return next((path for folder in conf_dirs() if (path := folder / group / f"{name}.yaml").is_file()), None)


def contents(group: str, name: str) -> dict[str, Any] | None:
    """The contents of a choice, merged with those of its defaults list; None if there is no such file.

    References to other groups (`${data.classes}`) are not resolved.
    """
    path = choice_file(group, name)
    if path is None:
        return _kind_defaults(plugins.load()).get((group, name))
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    begun: dict[str, Any] = {}
    for place, (folder, choice), anew in _begun_with(group, values.pop("defaults", [])):
        chosen = _at(place, contents(folder, choice) or {})
        begun = {**begun, **chosen} if anew else _merge(begun, chosen)
    return _merge(begun, values)


def smallest_with(group: str, kind: str, among: Container[str]) -> str | None:
    """The choice of a group of named parts that has a part of this kind and the fewest others, all of kinds `among`.

    None if none has.
    """
    found = []
    for name in choices_of(group):
        parts = [part for part in (contents(group, name) or {}).values() if isinstance(part, dict)]
        kinds = [str(part.get("kind")) for part in parts]
        if kind in kinds and all(one in among for one in kinds):
            found.append((len(parts), name))
    return min(found)[1] if found else None


def _begun_with(group: str, listed: list[Any]) -> Iterator[tuple[list[str], tuple[str, str], bool]]:
    """Yields (where its keys go, (group, choice), whether it overrides another choice) of each entry of a defaults list
    that names a choice of this group or of a group below it.
    """
    for entry in listed:
        key, choice = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        anew = str(key).startswith("override ")
        key = str(key).removeprefix("override ")
        if key.startswith("/") or choice == "_self_":
            continue
        name, _, package = (key or choice).partition("@")
        place = package.split(".") if package else [name] if key else []
        yield place, ((f"{group}/{name}", choice) if key and name else (group, choice.partition("@")[0])), anew


def _at(place: list[str], values: dict[str, Any]) -> dict[str, Any]:
    for key in reversed(place):
        values = {key: values}
    return values


def _merge(base: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in values.items():
        there = base.get(key)
        base[key] = _merge(dict(there), value) if isinstance(there, dict) and isinstance(value, dict) else value
    return base


@functools.cache
def _kind_defaults(_: tuple[plugins.Plugin, ...]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(group, name): values for group, name, values in default_choices(AXES, PARTS)}


def _files(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))
