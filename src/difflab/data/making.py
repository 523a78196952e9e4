"""The command that makes a data set, for those who lack it."""

from __future__ import annotations

import shlex

import yaml

from difflab.config.axes import SOURCES
from difflab.config.base import fields_by_key
from difflab.config.validate import validate
from difflab.data.directory import DataDirectory
from difflab.errors import UserError


def command_of(made_with: str, out: str) -> str:
    """The command that makes a data set with these options (`DataConfig.made_with`) in the directory `out`."""
    return f"difflab data make {made_with} out={out}"


def is_made_with(directory: DataDirectory, made_with: str) -> bool:
    """Whether the index of a data set says that it was made with these options of its source, so that making it again
    would not change it."""
    words = [word.partition("=") for word in shlex.split(made_with)]
    given = {key: value for key, _, value in words}
    name, source = given["source"], directory.index.source
    if name not in SOURCES or source.get("name") != name:
        return False
    model = SOURCES[name].config
    own = given.keys() & fields_by_key(model).keys()
    try:
        options = validate(model, {"kind": name, **{key: yaml.safe_load(given[key]) for key in own}}).plain()
    except (UserError, yaml.YAMLError):
        # Whoever runs the command is told what is wrong with it.
        return False
    return all(source.get(key) == options[key] for key in own)
