"""What `${...}` may stand for in a configuration: whatever it stands for is written into the files of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from difflab.errors import UserError

# These look up other keys of the configuration and evaluate nothing (as oc.decode would, at a second reading).
OF_KEYS = {"oc.select", "oc.deprecated", "oc.dict.keys", "oc.dict.values"}
ENVIRONMENT = "oc.env"
PLACES = re.compile(
    r"output_root|resume|run|out|classifier|low_res|images|mask|prompts|request|init\.from|(.+\.)?(path|run)"
    r"|metrics\.[^.]+\.(weights|classifier)"
)
"""The keys that name a place on this machine."""

SAFE = "places alone may come from it: output_root, data.path, init.from, resume, run, out"


def refuse_resolvers(composed: Any) -> None:
    """Raises UserError where a composed configuration takes a value from somewhere else than its own keys.

    A place on this machine may come from the environment (`data.path=${oc.env:DATA}`): the place is what is stored. A
    secret may not: config.yaml, the records of samples and W&B would show it.
    """
    from omegaconf import OmegaConf

    for key, value in _texts(OmegaConf.to_container(composed, resolve=False)):
        for name in _resolvers(value):
            if name == ENVIRONMENT and not PLACES.fullmatch(key):
                raise UserError(
                    f"{key}={value}: a value of the environment would be written into the run's files and shown in "
                    f"W&B; give the value itself ({SAFE})"
                )
            if name != ENVIRONMENT and name not in OF_KEYS:
                raise UserError(f"{key}={value}: ${{{name}:...}} is not known here; give the value itself")


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, inner in node.items():
            yield from _texts(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for inner in node:
            yield from _texts(inner, key)
    elif isinstance(node, str) and "${" in node:
        yield key, node


def _resolvers(text: str) -> list[str]:
    """The names of the resolvers that `text` calls, at any depth, as OmegaConf itself reads it."""
    from omegaconf.grammar_parser import parse

    names: list[str] = []
    nodes = [parse(text)]
    while nodes:
        node = nodes.pop()
        if type(node).__name__ == "ResolverNameContext":
            names.append(node.getText())
        nodes.extend(getattr(node, "children", None) or [])
    return names
