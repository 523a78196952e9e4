"""The sources `difflab data make` knows; a new one is a line here, a configuration and a class."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from difflab.config.base import Config
from difflab.data.sources.base import Source
from difflab.errors import UserError


@dataclass(frozen=True)
class SourceKind:
    """A source by name; its configuration and code are imported when it is used.

    config: "module:class" of its configuration. splits: "module:function", (configuration) -> {split: Source}
    with the splits that hold samples.
    """

    summary: str
    config: str
    splits: str

    def load_config(self) -> type[Config]:
        """The configuration class."""
        return _import(self.config)

    def load_splits(self) -> Callable[[Any], dict[str, Source]]:
        """The function that opens the source."""
        return _import(self.splits)


SOURCES = {
    "shapes": SourceKind(
        "procedural scenes of coloured shapes with captions, classes and boxes",
        "difflab.config.shapes:ShapesSourceConfig",
        "difflab.data.sources.procedural:shapes_splits",
    ),
    "folder": SourceKind(
        "image files in a directory; sub-directories are classes, name.txt is a caption",
        "difflab.config.folder:FolderSourceConfig",
        "difflab.data.sources.folder:folder_splits",
    ),
}


def find_source(name: str) -> SourceKind:
    """The source of that name. Raises UserError naming the known ones."""
    if name not in SOURCES:
        raise UserError(f"source={name} is not known; choose one of {', '.join(SOURCES)}")
    return SOURCES[name]


def _import(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
