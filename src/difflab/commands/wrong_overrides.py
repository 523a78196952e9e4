"""Names the override on which Hydra fails to compose a configuration, and what to write instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from difflab.commands.choices import chosen, chosen_twice, is_choice, no_mapping, no_such_choice, wrong_in_a_file
from difflab.config.groups import choice_file, choices_of, contents, is_group
from difflab.errors import UserError, first_line

Compose = Callable[[Sequence[str]], Mapping[str, Any]]
"""Composes a configuration with these overrides. Raises UserError if it cannot."""


def what_is_wrong(error: Exception, overrides: Sequence[str], compose: Compose) -> str:
    """Returns the line that names the override on which composing failed, and its remedy.

    error: what Hydra raised. compose: composes the same primary configuration with other overrides.
    """
    message = first_line(error)
    return (
        _wrong_choice(overrides)
        or no_mapping(overrides)
        or _wrong_syntax(overrides)
        or chosen_twice(message, overrides)
        or wrong_in_a_file(message)
        or _wrong_key(error, message, overrides, compose)
        or message
    )


def _wrong_choice(overrides: Sequence[str]) -> str | None:
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+")
        if not is_group(group):
            continue
        if not is_choice(group, value):
            return f"{override}: {no_such_choice(group, value)}"
    return None


def _wrong_syntax(overrides: Sequence[str]) -> str | None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for override in overrides:
        key, is_pair, value = override.partition("=")
        if not is_pair and not override.startswith("~"):
            return f"{override!r} is not an override; write key=value, as in seed=1"
        quoted = f"quote a string, as in '{key}=\"{value}\"'"
        try:
            parsed = parser.parse_override(override)
        except HydraException:
            return f"{override}: the value cannot be read; {quoted}"
        if parsed.is_sweep_override():
            return f"{override}: expected one value; write a list as [1,2], and {quoted}"
    return None


def _wrong_key(error: Exception, message: str, overrides: Sequence[str], compose: Compose) -> str | None:
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~").split("@")[0]
        if f"'{key}'" not in message and key not in message.split():
            continue
        if "already" in message:
            if override.startswith("+"):
                return f"{override}: {key!r} already exists; write it without +"
            continue
        # If the value is a mapping, the unknown key is inside it.
        unknown = str(getattr(error.__cause__, "full_key", None) or key)
        rest = [other for other in overrides if other != override]
        if of_other_tasks := _in_other_tasks(key, overrides, compose):
            return f"{override}: {of_other_tasks}"
        elsewhere = _in_other_choices(unknown, rest)
        if elsewhere is None and (whole := _below_null(unknown, rest, compose)):
            return f"{override}: {whole}"
        beside = _known_beside(unknown, rest, compose, guess=elsewhere is None)
        return f"{override}: {elsewhere or f'unknown key {unknown!r}'}{beside}"
    return None


def _in_other_tasks(key: str, overrides: Sequence[str], compose: Compose) -> str | None:
    """A message naming the tasks that have the axis of a key, if the chosen task does not."""
    axis = re.split(r"[./]", key)[0]
    owners = [f"task={task}" for task in choices_of("task") if axis in _axes_of(task)]
    if not owners:
        return None
    choices = {group: chosen(group, overrides) for group in ("experiment", "task")}
    try:
        present = compose([f"{group}={choice}" for group, choice in choices.items() if choice])
    except UserError:
        return None
    if "task" not in present or axis in present:
        return None
    return f"task={present['task']} has no {axis}: leave it out ({', '.join(owners)} has one)"


def _axes_of(task: str) -> set[str]:
    """The groups that a task adds to those that all share."""
    import yaml

    path = choice_file("task", task)
    assert path is not None, "it is one of the choices"
    defaults = yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"]
    return {group.strip("/") for choice in defaults for group in choice if group.startswith("/")}


def _in_other_choices(key: str, overrides: Sequence[str]) -> str | None:
    """A message naming the choices of its group that have a key which the present one lacks; None if there are none."""
    parts = key.split(".")
    for end in range(len(parts) - 1, 0, -1):
        group = "/".join(parts[:end])
        if not is_group(group):
            continue
        owners = [f"{group}={one}" for one in choices_of(group) if "/" not in one and _has(group, one, parts[end:])]
        if not owners:
            return None
        choice = chosen(group, overrides)
        present = f"{group}={choice}" if choice is not None else f"{group}, as chosen here,"
        inside = ".".join(parts[end:])
        return f"{present} has no {inside!r}; {', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it"
    return None


def _has(group: str, choice: str, path: Sequence[str]) -> bool:
    node: Any = contents(group, choice)
    for part in path:
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _below_null(key: str, overrides: Sequence[str], compose: Compose) -> str | None:
    """A message about setting a key of a section that is null in the configuration."""
    try:
        node: Any = compose(overrides)
    except UserError:
        return None
    parts = key.split(".")
    for depth, part in enumerate(parts[:-1], start=1):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
        if node is None:
            section = ".".join(parts[:depth])
            return f"{section} is null here: set the whole section, as in '{section}={{{parts[depth]}:...}}'"
    return None


def _known_beside(key: str, overrides: Sequence[str], compose: Compose, *, guess: bool) -> str:
    """A hint with the keys known at the place of `key`; with `guess`, with the closest match instead."""
    try:
        node: Any = compose(overrides)
    except UserError:
        return " (see the known keys with --cfg job)"
    *parents, last = key.split(".")
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if not isinstance(node, dict) or not node:
        return " (see the known keys with --cfg job)"
    deeper = [f"{key}.{last}" for key, section in node.items() if isinstance(section, dict) and last in section]
    if deeper and guess and not parents:
        return f"; did you mean {' or '.join(map(repr, deeper))}?"
    close = difflib.get_close_matches(last, node, n=1)
    if close and guess:
        return f"; did you mean {'.'.join([*parents, close[0]])!r}?"
    unshown = f" (use +{key}=... for one that is not listed)" if guess else ""
    return f"; known here: {', '.join(node)}{unshown}"
