"""The resolvers `${...}` allowed in a configuration, whose values are written into the files of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from difflab.errors import UserError

# These look up other keys of the configuration and evaluate nothing, unlike oc.decode when read a second time.
OF_KEYS = {"oc.select", "oc.deprecated", "oc.dict.keys", "oc.dict.values"}
ENVIRONMENT = "oc.env"
PLACES = re.compile(
    r"output_root|resume|run|out|classifier|clip|low_res|images|mask|prompts|request|init\.from|(.+\.)?(path|run)"
    r"|metrics\.[^.]+\.(weights|classifier|clip)"
)
"""The keys that hold a path on this machine."""

SAFE = "only paths may come from it: output_root, data.path, init.from, resume, run, out"


def refuse_resolvers(composed: Any) -> None:
    """Raises UserError if a composed configuration takes a value from anywhere but its own keys.

    A path on this machine may come from the environment (`data.path=${oc.env:DATA}`), as the path itself is stored. A
    secret may not: config.yaml, the records of samples and W&B would expose it.
    """
    from omegaconf import OmegaConf

    for key, value in _texts(OmegaConf.to_container(composed, resolve=False)):
        for name in _resolvers(value):
            if name == ENVIRONMENT and not PLACES.fullmatch(key):
                raise UserError(
                    f"{key}={value}: a value from the environment would be written into the run's files and shown in "
                    f"W&B; give the value itself ({SAFE})"
                )
            if name != ENVIRONMENT and name not in OF_KEYS:
                raise UserError(f"{key}={value}: ${{{name}:...}} is not supported; give the value itself")


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
    """The names of the resolvers that `text` calls at any depth, as parsed by OmegaConf."""
    from omegaconf.grammar_parser import parse

    names: list[str] = []
    nodes = [parse(text)]
    while nodes:
        node = nodes.pop()
        if type(node).__name__ == "ResolverNameContext":
            names.append(node.getText())
        nodes.extend(getattr(node, "children", None) or [])
    return names
