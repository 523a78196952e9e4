"""`--help KEY`: the full help of one key, one section, or one group with the options of each of its kinds."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from pydantic import BaseModel

from difflab.config.axes import AXES
from difflab.config.base import Config, fields_by_key, summary_of
from difflab.config.groups import choice_file, choices_of
from difflab.config.options import in_words, rows, said_of, shared
from difflab.config.places import annotation_of, entry_at, kinds_of, models_at, models_in

WIDTH = 100
"""Columns of wrapped text."""
LONGEST = 120
"""Columns of a line that is not wrapped."""
_SENTENCE = re.compile(r"(?<!et al)(?<!\beq)\.\s+(?=[^\s\d])")


@dataclass(frozen=True)
class Shown:
    """A configuration as shown by `--help`.

    plain: in plain containers, with references to other keys unresolved.
    choices: the choice of each group. about: further help, from the primary configuration.
    """

    plain: dict[str, Any]
    choices: dict[str, str | None]
    about: str


def about(topic: str, model: type[Config], shown: Shown) -> Iterator[str]:
    """Yields the help of a key (`seed`, `trainer.precision`), a section or a group (`sampler`, `diffusion/schedule`).

    The last parts of a key are enough. Yields nothing if there is none of this name.
    """
    group, path = topic.replace(".", "/"), tuple(topic.replace("/", ".").split("."))
    choices = choices_of(group) if group in shown.choices else []
    models, others = models_at(model, shown.plain, path)
    if choices or models:
        yield f"{topic}: {_text_of(model, shown.plain, path)}".removesuffix(": ")
        yield from _choices(group, choices)
        yield from _kinds([*models, *others] if choices else models)
        return
    for place in _ending_with(path, shown.plain, ()):
        yield from _entry(".".join(place), entry_at(shown.plain, place), _text_of(model, shown.plain, place))
    if topic == "experiment" and "experiment" in shown.choices:
        yield from _entry(topic, None, said_of(model)[topic])


def _text_of(model: type[Config], plain: Mapping[str, Any], path: Sequence[str]) -> str:
    owners, _ = models_at(model, plain, list(path[:-1]))
    return said_of(owners[0]).get(path[-1], "") if len(owners) == 1 else ""


def _choices(group: str, choices: Sequence[str]) -> Iterator[str]:
    """Yields `group=name` of every file with its description."""
    if choices:
        yield f"\n{group}= takes:"
        column = max(map(len, choices))
        for choice in choices:
            yield f"  {choice:<{column}}  {in_a_line(_said_of_file(group, choice), LONGEST - column - 4)}".rstrip()


def _said_of_file(group: str, choice: str) -> str:
    """The comment at the start of a file; where there is none, the description of the kind of the same name."""
    path = choice_file(group, choice)
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    begins = takewhile(lambda line: line.startswith("#"), lines)
    comment = " ".join(line.lstrip("# ") for line in begins if "@package" not in line)
    kinds = next((axis for axis in AXES if axis.group == group), {})
    return comment or (kinds[choice].summary if choice in kinds else "")


def _kinds(models: Sequence[type[BaseModel]]) -> Iterator[str]:
    """Yields the keys of each kind, or of the only section."""
    configs = {model: _nested(model) for model in models if issubclass(model, Config)}
    in_all = shared([*configs.values()])
    if in_all:
        yield "\nEvery kind has:"
        yield from _rows(in_all, 1)
    for config in sorted(configs, key=lambda config: kinds_of(config)):
        own = {key: row for key, row in configs[config].items() if key not in in_all}
        if kinds := kinds_of(config):
            yield f"\nkind: {' or '.join(kinds)}\n{_wrapped(summary_of(config), 1)}"
        elif own:
            yield "\nIts keys:"
        yield from _rows(own, 1)


Nested = tuple[str, str, dict[str, Any]]
"""(default, description, the keys below it)."""


def _nested(config: type[Config]) -> dict[str, Nested]:
    """The keys of a configuration, including those of sections without kinds."""
    found: dict[str, Nested] = {}
    for key, (default, text) in rows(config).items():
        field = config.complete().model_fields[fields_by_key(config)[key]]
        inside = [one for one in models_in(annotation_of(field)) if issubclass(one, Config)]
        below = _nested(inside[0]) if len(inside) == 1 and not kinds_of(inside[0]) else {}
        found[key] = "" if below and default != "null" else default, text, below
    return found


def _rows(nested: Mapping[str, Nested], depth: int) -> Iterator[str]:
    for key, (default, text, below) in nested.items():
        yield f"{'  ' * depth}{key}: {default}".rstrip()
        if text:
            yield _wrapped(text, depth + 2)
        yield from _rows(below, depth + 1)


def in_a_line(text: str, width: int) -> str:
    """The first sentence of a text, or if that is too wide, its first clause and an ellipsis.

    A list of values after a colon is left out as a whole.
    """
    sentence = _SENTENCE.split(text, 1)[0].removesuffix(".")
    if len(sentence) <= width:
        return sentence
    ends = [
        end.start()
        for end in re.finditer(r"[:;] ", sentence[: width - 3])
        if sentence.count("(", 0, end.start()) == sentence.count(")", 0, end.start())
    ]
    end = ends[0] if ends else max(sentence.rfind(sign, 0, width - 3) for sign in (" (", ", ", " "))
    return f"{sentence[:end].rstrip(',:;')} ..."


def _entry(key: str, value: Any, text: str) -> Iterator[str]:
    yield f"{key}: {in_words(value)}"
    if text:
        yield _wrapped(text, 2)


def _wrapped(text: str, depth: int) -> str:
    indent = "  " * depth
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _ending_with(path: Sequence[str], node: Any, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yields the paths of all keys that end in `path`."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        place = (*above, str(key))
        if place[-len(path) :] == tuple(path):
            yield place
        yield from _ending_with(path, value, place)
