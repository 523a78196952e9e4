"""Where Hydra looks for choices: besides difflab's conf folder those of plugins, and the defaults of every kind."""

from __future__ import annotations

import functools

from difflab.config.axes import AXES
from difflab.config.defaults import default_choices
from difflab.config.groups import conf_dirs


@functools.cache
def extend_search_path() -> None:
    """Have every configuration that is composed in this process know them.

    Raises UserError where a plugin cannot be loaded, or has what another has.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    _, *of_plugins = conf_dirs()

    class PluginFolders(SearchPathPlugin):
        def manipulate_search_path(self, search_path: object) -> None:
            for folder in of_plugins:
                search_path.append("difflab", folder.as_uri())  # type: ignore[attr-defined]

    Plugins.instance().register(PluginFolders)
    for group, name, contents in default_choices(AXES):
        ConfigStore.instance().store(name=name, node=contents, group=group, provider="difflab")
