"""Overrides as a user would type them, and texts in which OmegaConf finds no reference to another key."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[\w./+-]+")
_ENDS = re.compile(r"(\\*)(\"|\Z)")
_OPENS = re.compile(r"(\\*)\$\{")


def as_override(key: str, value: str) -> str:
    """`key=value` for a shell; a value that Hydra would parse differently is quoted."""
    if _PLAIN.fullmatch(value):
        return f"{key}={value}"
    return f"'{key}={quoted(value)}'"


def quoted(text: str) -> str:
    """The text as a quoted value in the grammar of Hydra's overrides: backslashes are doubled before a quote alone."""
    return '"' + _ENDS.sub(lambda found: 2 * found[1] + ('\\"' if found[2] else ""), text) + '"'


def literal(text: str) -> str:
    """The text as a value that OmegaConf does not interpolate: `${` is a letter like any other in it."""
    return _OPENS.sub(lambda found: 2 * found[1] + "\\${", text)
