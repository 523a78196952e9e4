"""Hydra's search path: the conf folders of difflab and of plugins, and the defaults of every kind."""

from __future__ import annotations

import functools
from typing import Any

from difflab.config.axes import AXES, PARTS
from difflab.config.defaults import SUFFIX, default_choices, defaults_of, groups_below
from difflab.config.groups import choice_file, conf_dirs
from difflab.config.plugins import Plugin, load
from difflab.config.registry import Kind, Registry


def extend_search_path() -> None:
    """Extends Hydra's search path for all configurations composed from now on.

    Raises UserError if a plugin cannot be loaded, or conflicts with another.
    """
    conf_dirs()
    _know_folders()
    _know_defaults(load())


@functools.cache
def _know_folders() -> None:
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class PluginFolders(SearchPathPlugin):
        """Called by Hydra at every composition."""

        def manipulate_search_path(self, search_path: Any) -> None:
            for folder in conf_dirs()[1:]:
                search_path.append("difflab", folder.as_uri())

    Plugins.instance().register(PluginFolders)


@functools.lru_cache(maxsize=1)
def _know_defaults(_: tuple[Plugin, ...]) -> None:
    from hydra.core.config_store import ConfigStore

    store = functools.partial(ConfigStore.instance().store, provider="difflab")
    for group, name, contents in default_choices(AXES, PARTS):
        store(name=name, node=contents, group=group)
    for axis in AXES:
        for kind in axis.values():
            if below := groups_below(axis, kind):
                store(name=f"{kind.name}{SUFFIX}", node=_with_groups(kind, below), group=axis.group)


def _with_groups(kind: Kind, below: dict[str, tuple[Registry, str]]) -> dict[str, Any]:
    """The defaults of a kind, in which `group/below=name` can override its subgroups."""
    chosen = [
        {key: name if choice_file(inner.group, name) is not None else f"{name}{SUFFIX}"}
        for key, (inner, name) in below.items()
    ]
    values = {key: value for key, value in defaults_of(kind).items() if key not in below}
    return {"defaults": ["_self_", *chosen], **values}
