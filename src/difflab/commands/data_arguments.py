"""The arguments of `difflab data make` and `encode`: `key=value` words, of which a chosen kind has some of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from inspect import cleandoc
from typing import Any, TypeVar

import yaml

from difflab.config.base import Config, fields_by_key
from difflab.config.options import key_lines
from difflab.config.registry import Kind, Registry
from difflab.config.validate import validate
from difflab.errors import UserError

Own = TypeVar("Own", bound=Config)


def parse_arguments(arguments: Sequence[str], first: str, texts: Collection[str]) -> dict[str, Any]:
    """`key=value`, `--key value`, `--key=value`, `--flag`, and a first bare word; values are YAML. `section.key=value`
    is a key of a section.

    first: the key of the bare word. texts: keys whose values are taken literally: a directory may be named 1 or null.

    Raises UserError for a word that is none of these, or a key given twice.
    """
    given: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        if not equals and word.startswith("--"):
            text = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        elif not equals:
            if given:
                raise UserError(f"{word!r} is not key=value; write it as key={word}")
            key, text = first, word
        key = key.replace("-", "_")
        if key in given:
            raise UserError(f"{key} is given twice; keep one of them")
        given[key] = text if key in texts else _value(key, text)
    return _nested(given)


def _nested(given: dict[str, Any]) -> dict[str, Any]:
    """`{"model.kind": "t5"}` -> `{"model": {"kind": "t5"}}`."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        *sections, last = key.split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise UserError(f"{key} is a part of {section}, which is given as a whole: give one of them")
        if last in place:
            raise UserError(f"{key} is given twice, as a whole and in parts: give one of them")
        place[last] = value
    return found


def _value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    # An invalid date is a ValueError.
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"{key}={text[:100]} cannot be parsed as a value; put quotes around it") from None


def find_kind(axis: Registry, name: str) -> Kind:
    """The kind of this name. Raises UserError naming the known ones."""
    if name not in axis:
        raise UserError(f"{axis.group}={name} is not known; choose one of {', '.join(sorted(axis))}")
    return axis[name]


def validated(own: type[Own], axis: Registry, kind: Kind, given: dict[str, Any]) -> tuple[Own, Config]:
    """The command's own keys and those of the kind, each checked. Raises UserError for an unknown key."""
    ours = {key: given[key] for key in given if key in own.model_fields}
    theirs = {key: value for key, value in given.items() if key not in ours}
    kind_keys = fields_by_key(kind.config).keys() - {"kind"}
    unknown = [key for key in theirs if key not in kind_keys]
    if unknown:
        known = sorted({*own.model_fields, *kind_keys})
        raise UserError(f"unknown key {unknown[0]!r} for {axis.group}={kind.name}; known: {', '.join(known)}")
    return validate(own, ours), validate(kind.config, {**theirs, "kind": kind.name})


def described(own: type[Config], axis: Registry, kind: Kind) -> str:
    """The keys of a kind and of the command, one per line with default and description."""
    about = cleandoc(kind.config.__doc__ or "")
    ours = [line for line in key_lines(own) if not line.startswith(f"  {axis.group}=")]
    heading = f"of every {axis.group}:"
    return "\n".join([f"{axis.group}={kind.name}: {about}", "", *key_lines(kind.config), "", heading, *ours]) + "\n"
