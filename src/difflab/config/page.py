"""docs/configuration.md: every axis with its choices, of the registries; `python -m difflab.config.page` writes it."""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from difflab.config import axes
from difflab.config.axes import AXES, NAMES, PARTS, UNFILED
from difflab.config.base import Config, fields_by_key
from difflab.config.defaults import MISSING, options_of
from difflab.config.described import described, named_in
from difflab.config.registry import Axis, Kind, Names, Registry
from difflab.config.slots import OWN, Slots
from difflab.config.task import TASKS
from difflab.files import write_text

PAGE = Path("docs/configuration.md")
HEAD = """# Configuration

Every axis on which a run is a choice, with its choices and their options. This page is made of the code by
`python -m difflab.config.page`. An installed package may bring further ones: `difflab doctor` lists those, and
`difflab train --help` the files of each group. A file of a group that says `defaults: [euler_defaults, _self_]` has all
options of `kind: euler`; `callbacks_defaults` and `logger_defaults` have a key for every callback and logger.
"""


def page() -> str:
    """The whole page, of difflab's own choices."""
    return "\n".join([HEAD, *_contents(), *_tasks(), *_kinds(AXES), *_parts(), *_kinds(UNFILED), *_words()]) + "\n"


def _contents() -> Iterator[str]:
    names = [TASKS.group, *(axis.group for axis in (*AXES, *PARTS, *UNFILED))]
    yield "Axes: " + ", ".join(f"[{name}](#{_anchor(name)})" for name in names) + "; [words](#words).\n"


def _tasks() -> Iterator[str]:
    yield "## task\n\nWhat is learned.\n"
    yield from _table(
        ("task", "what is left of its runs"), ((f"`{name}`", task.summary) for name, task in _own(TASKS).items())
    )


def _kinds(chosen: Sequence[Registry]) -> Iterator[str]:
    said = _said_of_axes()
    for axis in chosen:
        kinds = _own(axis)
        yield f"## {axis.group}\n\n{said[id(axis)]}\n"
        yield from _table(("kind", "what it is"), ((f"`{name}`", kind.summary) for name, kind in kinds.items()))
        shared = _shared(kinds.values())
        yield from _options("Every kind", shared)
        for name, kind in kinds.items():
            own = {key: row for key, row in _rows(kind.config).items() if shared.get(key) != row}
            yield from _options(f"`{name}`", own)


def _parts() -> Iterator[str]:
    said = _said_of_axes()
    for axis in PARTS:
        parts = _own(axis)
        yield f"## {axis.group}\n\n{said[id(axis)]} Each may be there under its name, or null.\n"
        rows = ((f"`{name}`", part.summary, "yes" if part.default else "") for name, part in parts.items())
        yield from _table(("name", "what it is", "by default"), rows)
        for name, part in parts.items():
            yield from _options(f"`{name}`", _rows(part.config))


def _words() -> Iterator[str]:
    said = _said_of_axes()
    yield "## words\n\nOptions whose values are choices of code, without options of their own.\n"
    for names in NAMES:
        yield f"`{names.what}`: {said[id(names)]}\n"
        yield from _table(("value", "what it is"), ((f"`{word}`", _said_of(names, word)) for word in _own(names)))


def _own(axis: Axis[Any]) -> dict[str, Any]:
    """difflab's own choices."""
    package = axis.package if isinstance(axis, Names) else lambda name: axis[name].package
    return {name: choice for name, choice in axis.items() if package(name) == OWN}


def _said_of(names: Names, word: str) -> str:
    module, _, name = names[word].partition(":")
    return named_in(module)[name]


def _said_of_axes() -> dict[int, str]:
    said = named_in(axes.__name__)
    # What builders are like is for those who write one.
    return {id(getattr(axes, name)): text.partition(" Builders:")[0] for name, text in said.items()}


Row = tuple[str, str]
"""(default, what it is)."""


def _rows(config: type[Config]) -> dict[str, Row]:
    """Of each key of a configuration."""
    said, defaults = described(config), options_of(config)
    slots = config.slots() if issubclass(config, Slots) else {}
    rows = {}
    for key, name in fields_by_key(config).items():
        if name == "kind":
            continue
        text = f"The options of `{name}`, or null." if name in slots else said.get(name, "")
        rows[key] = _default(defaults[key]), text or _values(config.complete(), name)
    return rows


def _values(config: type[BaseModel], name: str) -> str:
    values = [one for one in _literals(config.model_fields[name].annotation) if isinstance(one, str)]
    return f"{', '.join(values)}." if values else ""


def _literals(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        yield from typing.get_args(annotation)
    else:
        for argument in typing.get_args(annotation):
            yield from _literals(argument)


def _default(value: Any) -> str:
    if value == MISSING:
        return "has to be given"
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if value is None or isinstance(value, bool) else _flow(value)
    return f"`{text}`"


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_default(inner)[1:-1]}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_default(inner)[1:-1] for inner in value) + "]"
    return str(value)


def _shared(kinds: Iterable[Kind]) -> dict[str, Row]:
    """The keys that all of several kinds have, with the same default and the same meaning."""
    first, *others = [_rows(kind.config) for kind in kinds]
    return {key: row for key, row in first.items() if all(other.get(key) == row for other in others)} if others else {}


def _options(who: str, rows: Mapping[str, Row]) -> Iterator[str]:
    if rows:
        yield f"{who} has:\n"
        yield from _table(("option", "default", "what it is"), ((f"`{key}`", *row) for key, row in rows.items()))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def _anchor(name: str) -> str:
    return name.replace("/", "")


if __name__ == "__main__":
    write_text(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE, page())
