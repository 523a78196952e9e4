"""Installed packages that add choices: found by an entry point, loaded when a choice is looked up."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from difflab.errors import UserError, first_line

GROUP = "difflab.plugins"
"""The group of entry points that name torch-free modules, which register choices when imported."""
CONF = "conf"
"""The folder beside such a module whose configuration groups are merged with difflab's own."""


@dataclass(frozen=True)
class Plugin:
    """An installed package that adds choices.

    distribution, version: as in pip. module: named by its entry point. conf: its folder of configuration groups.
    error: why it could not be loaded. imports_torch: whether importing its module imported torch.
    """

    distribution: str
    version: str
    module: str
    conf: Path | None = None
    error: str | None = None
    imports_torch: bool = False

    @property
    def package(self) -> str:
        """The top-level package of its choices."""
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


_importing: list[bool] = []


@functools.cache
def find() -> tuple[Plugin, ...]:
    """All installed plugins, by name, each imported."""
    found = metadata.entry_points(group=GROUP)
    _importing.append(True)
    try:
        return tuple(_imported(point) for point in sorted(found, key=lambda point: (point.value, point.name)))
    finally:
        _importing.clear()


def load() -> tuple[Plugin, ...]:
    """All installed plugins; none if called by a plugin during its own import.

    Raises UserError if one cannot be loaded.
    """
    if _importing:
        return ()
    for plugin in find():
        if plugin.error is not None:
            raise UserError(
                f"the plugin {plugin} cannot be loaded ({plugin.error}): fix it, or run pip uninstall "
                f"{plugin.distribution}"
            )
    return find()


def are_being_imported() -> bool:
    """Whether this is called during the import of a plugin."""
    return bool(_importing)


def owner(package: str) -> Plugin | None:
    """The plugin that a top-level package belongs to, None if there is none."""
    return next((plugin for plugin in find() if plugin.package == package), None)


def _imported(point: metadata.EntryPoint) -> Plugin:
    distribution = point.dist
    name, version = ("?", "?") if distribution is None else (distribution.name, distribution.version)
    module = point.module
    has_torch = "torch" in sys.modules
    try:
        importlib.import_module(module)
        conf = _conf_beside(module)
    except UserError as error:
        # Two choices share a name.
        return Plugin(name, version, module, error=str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever their code raises is reported by name
        return Plugin(name, version, module, error=f"{type(error).__name__}: {first_line(error)}")
    return Plugin(name, version, module, conf, imports_torch="torch" in sys.modules and not has_torch)


def _conf_beside(module: str) -> Path | None:
    file = importlib.import_module(module).__file__
    folder = Path(file).resolve().parent / CONF if file is not None else None
    return folder if folder is not None and folder.is_dir() else None
