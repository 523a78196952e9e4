"""`--help` of the commands that Hydra composes: every key with its default and a short description.

`difflab train --help` lists the run's own keys, the groups with their choices, and the sections. `difflab train --help
sampler` shows all about one key, section or group, with the options of every kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from difflab.commands.choices import near_choices
from difflab.commands.composing import to_be_shown
from difflab.commands.help_topic import Shown, about, in_a_line
from difflab.config.base import Config
from difflab.config.groups import choices_of
from difflab.config.options import said_of
from difflab.config.places import models_at
from difflab.errors import UserError

WIDTH = 120
"""Columns of a line, except for lists of choices and long values."""
_LARGEST_COLUMN = 40


def help_text(primary: str, model: type[Config], overrides: Sequence[str], topics: Sequence[str]) -> str:
    """The text of `--help` for a command with these overrides: an overview, or the keys and groups in `topics`.

    Raises UserError for overrides that cannot be composed, and for unknown topics.
    """
    shown = Shown(*to_be_shown(primary, overrides))
    model = model.chosen(shown.plain)
    if topics:
        return "\n\n".join("\n".join(_about(topic, model, shown)) for topic in topics) + "\n"
    command = primary.removesuffix("_samples").removesuffix("_reconstructions").replace("_", "-")
    return "\n".join([*_overview(command, model, shown), "", shown.about]) + "\n"


def groups_of(shown: Shown) -> dict[str, list[str]]:
    """The choices of each group that a configuration has; subfolders of a group are listed separately."""
    folders: dict[str, set[str]] = {}
    for group in shown.choices:
        for choice in choices_of(group):
            folder, _, name = f"{group}/{choice}".rpartition("/")
            folders.setdefault(folder, set()).add(name)
    return {folder: sorted(names) for folder, names in sorted(folders.items())}


def _overview(command: str, model: type[Config], shown: Shown) -> Iterator[str]:
    yield f"difflab {command}: overrides are key=value; a choice of a group is group=name"
    yield f"difflab {command} --help KEY shows all about a key, a section or a group, as in --help {_example(shown)}\n"
    yield "== Own keys (override anything, as in seed=1) =="
    own = {key: value for key, value in shown.plain.items() if not isinstance(value, Mapping)}
    if "experiment" in shown.choices:
        own = {"experiment": shown.choices["experiment"], **own}
    yield from _lines(model, own, shown.plain)
    yield "\n== Groups and their choices =="
    yield from (f"{folder}: {', '.join(names)}" for folder, names in groups_of(shown).items())
    yield "\n== Defaults of the sections (override anything, as in section.key=value) =="
    sections = [key for key in shown.plain if key not in own]
    for key in sections:
        if text := said_of(model).get(key):
            yield f"# {in_a_line(text, WIDTH - 2)}"
        yield from _lines(model, {key: shown.plain[key]}, shown.plain)
        yield from [""] if key != sections[-1] else []


def _example(shown: Shown) -> str:
    return next((group for group in ("sampler", "method") if group in shown.choices), "logger")


def _lines(model: type[Config], part: Mapping[str, Any], plain: Mapping[str, Any]) -> Iterator[str]:
    """YAML with a comment describing each key, aligned in one column."""
    entries = list(_entries(model, part, plain, ()))
    column = min(max(len(entry) for entry, _ in entries), _LARGEST_COLUMN) + 2
    for entry, text in entries:
        place = max(column, len(entry) + 2)
        yield f"{entry:<{place}}# {in_a_line(text, WIDTH - place - 2)}" if text else entry


def _entries(
    model: type[BaseModel], part: Mapping[str, Any], plain: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """Yields (`key: value` or `section:`, its description) of everything below a path."""
    matching, _ = models_at(model, plain, path)
    # User-defined names (metrics, conditioners) have no description, only their contents do.
    said = said_of(matching[0]) if len(matching) == 1 else {}
    for key, value in part.items():
        indented = "  " * len(path) + str(key)
        if isinstance(value, Mapping) and value:
            # A section is described above it.
            yield f"{indented}:", said.get(key, "") if path else ""
            yield from _entries(model, value, plain, (*path, key))
        else:
            yield f"{indented}: {_flow(value)}", said.get(key, "")


def _flow(value: Any) -> str:
    """A value as one line of YAML."""
    return yaml.safe_dump([value], default_flow_style=True, width=10**6).strip()[1:-1]


def _about(topic: str, model: type[Config], shown: Shown) -> Iterator[str]:
    found = list(about(topic, model, shown))
    if not found:
        known = sorted({*filter(choices_of, shown.choices), *shown.plain})
        raise UserError(f"--help {topic}: no such key, section or group{near_choices(topic, known)}")
    yield from found
