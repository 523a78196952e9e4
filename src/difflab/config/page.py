"""Writes docs/configuration.md, every axis with its choices, from the registries: `python -m difflab.config.page`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from difflab.config.axes import AXES, NAMES, PARTS, UNFILED
from difflab.config.described import named_in
from difflab.config.options import REQUIRED, Row, rows, said_of_axes, shared
from difflab.config.registry import Axis, Names, Registry
from difflab.config.slots import OWN
from difflab.config.task import TASKS
from difflab.files import write_text

PAGE = Path("docs/configuration.md")
HEAD = """# Configuration

Every axis of a run, with its choices and their options. This page is generated from the code by
`python -m difflab.config.page`. Installed packages may add choices: `difflab doctor` lists those, and
`difflab train --help` the files of each group. A file of a group with `defaults: [euler_defaults, _self_]` has all
options of `kind: euler`; `callbacks_defaults` and `logger_defaults` have a key for every callback and logger.
"""


def page() -> str:
    """The whole page, for difflab's own choices."""
    return "\n".join([HEAD, *_contents(), *_tasks(), *_kinds(AXES), *_parts(), *_kinds(UNFILED), *_words()]) + "\n"


def _contents() -> Iterator[str]:
    names = [TASKS.group, *(axis.group for axis in (*AXES, *PARTS, *UNFILED))]
    yield "Axes: " + ", ".join(f"[{name}](#{_anchor(name)})" for name in names) + "; [words](#words).\n"


def _tasks() -> Iterator[str]:
    yield "## task\n\nWhat is learned.\n"
    yield from _table(
        ("task", "what its runs produce"), ((f"`{name}`", task.summary) for name, task in _own(TASKS).items())
    )


def _kinds(chosen: Sequence[Registry]) -> Iterator[str]:
    said = said_of_axes()
    for axis in chosen:
        kinds = _own(axis)
        yield f"## {axis.group}\n\n{said[axis.group]}\n"
        yield from _table(("kind", "what it is"), ((f"`{name}`", kind.summary) for name, kind in kinds.items()))
        of_kinds = {name: rows(kind.config) for name, kind in kinds.items()}
        in_all = shared([*of_kinds.values()])
        yield from _options("Every kind", in_all)
        for name, listed in of_kinds.items():
            yield from _options(f"`{name}`", {key: row for key, row in listed.items() if key not in in_all})


def _parts() -> Iterator[str]:
    said = said_of_axes()
    for axis in PARTS:
        parts = _own(axis)
        yield f"## {axis.group}\n\n{said[axis.group]} Each is enabled under its name, or null.\n"
        listed = ((f"`{name}`", part.summary, "yes" if part.default else "") for name, part in parts.items())
        yield from _table(("name", "what it is", "by default"), listed)
        for name, part in parts.items():
            yield from _options(f"`{name}`", rows(part.config))


def _words() -> Iterator[str]:
    said = said_of_axes()
    yield "## words\n\nOptions whose values name code without options of its own.\n"
    for names in NAMES:
        yield f"`{names.what}`: {said[names.what]}\n"
        yield from _table(("value", "what it is"), ((f"`{word}`", _said_of(names, word)) for word in _own(names)))


def _own(axis: Axis[Any]) -> dict[str, Any]:
    """difflab's own choices."""
    package = axis.package if isinstance(axis, Names) else lambda name: axis[name].package
    return {name: choice for name, choice in axis.items() if package(name) == OWN}


def _said_of(names: Names, word: str) -> str:
    module, _, name = names[word].partition(":")
    return named_in(module)[name]


def _options(who: str, listed: Mapping[str, Row]) -> Iterator[str]:
    if listed:
        yield f"{who} has:\n"
        yield from _table(("option", "default", "what it is"), (_option(key, *row) for key, row in listed.items()))


def _option(key: str, default: str, text: str) -> tuple[str, str, str]:
    return f"`{key}`", default if default == REQUIRED else f"`{default}`", text


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
