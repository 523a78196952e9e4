"""Where Hydra looks for choices: besides difflab's conf folder those of plugins, and the defaults of every kind."""

from __future__ import annotations

import functools
from typing import Any

from difflab.config.axes import AXES
from difflab.config.defaults import default_choices
from difflab.config.groups import conf_dirs
from difflab.config.plugins import Plugin, load


def extend_search_path() -> None:
    """Have every configuration that is composed from now on know them.

    Raises UserError where a plugin cannot be loaded, or has what another has.
    """
    conf_dirs()
    _know_folders()
    _know_defaults(load())


@functools.cache
def _know_folders() -> None:
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class PluginFolders(SearchPathPlugin):
        """Asked by Hydra whenever it composes."""

        def manipulate_search_path(self, search_path: Any) -> None:
            for folder in conf_dirs()[1:]:
                search_path.append("difflab", folder.as_uri())

    Plugins.instance().register(PluginFolders)


@functools.cache
def _know_defaults(_: tuple[Plugin, ...]) -> None:
    from hydra.core.config_store import ConfigStore

    for group, name, contents in default_choices(AXES):
        ConfigStore.instance().store(name=name, node=contents, group=group, provider="difflab")
