"""Overrides as a user would type them."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[\w./+-]+")


def as_override(key: str, value: str) -> str:
    """`key=value` for a shell; a value that Hydra would parse differently is quoted."""
    if _PLAIN.fullmatch(value):
        return f"{key}={value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f"'{key}=\"{escaped}\"'"
