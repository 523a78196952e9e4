"""Messages about choices that do not exist, made on the command line or in a file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from difflab.config.axes import AXES
from difflab.config.groups import choice_file, choices_of, is_group
from difflab.config.registry import Kind

if TYPE_CHECKING:
    import yaml

_NOT_THERE = re.compile(r"^In '(?P<place>[^']+)': Could not (?:find|load) '(?P<group>[^']+?)/(?P<name>[^'/]+)'")
_ELSEWHERE = re.compile(r"^In '(?P<place>[^']+)': Could not override '[^']*@experiment\.")
_DEFAULTS = "_defaults"


def chosen(group: str, overrides: Sequence[str]) -> str | None:
    """Returns the choice that the last override of a group makes, None if there is none."""
    return next((o.partition("=")[2] for o in reversed(overrides) if o.partition("=")[0] == group), None)


def near_choices(value: str, known: Sequence[str]) -> str:
    """The hint after an unknown choice: the closest match, and the known choices.

    Of choices in folders, those beside the value or its closest match are named, and the other folders.
    """
    close = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{hint} (known: {', '.join(_listed(known, {value, *close}))})"


def _listed(known: Sequence[str], near: Iterable[str]) -> list[str]:
    """The choices without folder, those in a folder of `near`, and the other folders, as `folder/*`."""
    opened = {name.partition("/")[0] for name in near}
    folders = {name.partition("/")[0] for name in known if "/" in name}
    named = [name for name in known if "/" not in name or name.partition("/")[0] in opened]
    return [*named, *(f"{folder}/*" for folder in sorted(folders - opened))]


def is_choice(group: str, name: str) -> bool:
    """Whether `group=name` selects a file, or the defaults of a kind."""
    return name in choices_of(group) or (name.endswith(_DEFAULTS) and name.removesuffix(_DEFAULTS) in _kinds(group))


def no_such_choice(group: str, name: str) -> str:
    """The message after `group=name`, also for a registered kind of a plugin that has no file."""
    kind = _kinds(group).get(name)
    if kind is not None and kind.package != "difflab":
        return (
            f"no such choice; {kind.package} registers that kind, but has no file to select it: "
            f"add conf/{group}/{name}.yaml beside the module {kind.module}"
        )
    known = choices_of(group)
    if group == "data" and "/" in name:
        return f"no such choice; a directory is given by data.path={name} (known: {', '.join(known)})"
    return f"no such choice{near_choices(name, known)}"


def wrong_in_a_file(message: str) -> str | None:
    """Rewrites Hydra's message about a choice made in a file; None for any other message."""
    if found := _ELSEWHERE.match(message):
        return f"conf/{found['place']}.yaml: its first line must be `# @package _global_`"
    found = _NOT_THERE.match(message)
    if found is None or not is_group(found["group"]):
        return None
    group, name = found["group"], found["name"]
    if not _kinds(group) or not name.endswith(_DEFAULTS):
        # Hydra names the file that first mentions the group, which is seldom the one that makes the choice.
        return f"{group}={name}: {no_such_choice(group, name)}"
    kind = name.removesuffix(_DEFAULTS)
    return f"conf/{found['place']}.yaml: {name}: no kind {kind} is registered{near_choices(kind, list(_kinds(group)))}"


def chosen_twice(message: str, overrides: Sequence[str]) -> str | None:
    """Rewrites Hydra's message about a group added twice; None for any other message."""
    for override in overrides:
        group = override.partition("=")[0].removeprefix("+")
        if override.startswith("+") and message.startswith(f"Multiple values for {group}."):
            return f"{override}: {group} is already chosen; write it without +"
    return None


def no_mapping(overrides: Sequence[str]) -> str | None:
    """The error if a chosen file contains anything but keys and values, else None."""
    for override in overrides:
        group, _, name = override.partition("=")
        path = choice_file(group.lstrip("+").partition("@")[0], name)
        if path is not None and (wrong := _no_mapping_in(path)) is not None:
            return wrong
    return None


def unreadable_files(conf: Path | None) -> Iterator[str]:
    """An error for each file of a conf folder that Hydra cannot read."""
    import yaml

    for path in sorted(conf.rglob("*.yaml")) if conf is not None else ():
        try:
            wrong = _no_mapping_in(path)
        except yaml.MarkedYAMLError as error:
            wrong = unreadable(error, path)
        except (yaml.YAMLError, UnicodeDecodeError):
            wrong = f"{path}: not UTF-8 text"
        if wrong is not None:
            yield wrong


def _no_mapping_in(path: Path) -> str | None:
    import yaml

    content = yaml.safe_load(path.read_bytes().decode("utf-8"))
    return None if isinstance(content, dict | None) else f"{path}: write keys and their values, as in `steps: 10`"


def unreadable(error: yaml.MarkedYAMLError, path: Path | None = None) -> str:
    """The file and line of a YAML error. path: the file, if the error does not know it."""
    mark = error.problem_mark
    place = f"{path or mark.name}, line {mark.line + 1}" if mark is not None else "a file of the configuration"
    return f"{place}: invalid YAML ({error.problem})"


def _kinds(group: str) -> Mapping[str, Kind]:
    return next((axis for axis in AXES if axis.group == group), {})
