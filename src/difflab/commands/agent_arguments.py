"""Converts the arguments that `wandb agent` writes for a point of a sweep to Hydra's notation.

The agent writes values as Python prints them: null as None, a string with a comma without quotes, a mapping with quoted
keys. It also leaves a file with the values themselves, which is what the sweep means.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from difflab.errors import UserError, in_one_line


def as_the_sweep_means(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> list[str]:
    """`argv` with each argument of the agent rewritten so that Hydra parses its value.

    Raises UserError if the agent's file cannot be read.
    """
    path = environ.get("WANDB_SWEEP_PARAM_PATH")
    if not path:
        return list(argv)
    meant = {f"{key}={value}": f"{key}={_notation(key, value)}" for key, value in _values(Path(path)).items()}
    return [_prefix(argument) + meant.get(argument.lstrip("+"), argument.lstrip("+")) for argument in argv]


def _values(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(
            f"WANDB_SWEEP_PARAM_PATH={path} cannot be read ({in_one_line(error)}): it is the file of "
            "`wandb agent`; unset it outside an agent"
        ) from None
    entries = content.items() if isinstance(content, dict) else ()
    return {str(key): entry["value"] for key, entry in entries if isinstance(entry, dict) and "value" in entry}


def _prefix(argument: str) -> str:
    return argument[: len(argument) - len(argument.lstrip("+"))]


def _notation(key: str, value: Any) -> str:
    if isinstance(value, str):
        return value if _is_one_value(key, value) else _quoted(value)
    return _part(value)


def _part(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_part, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_part(part)}" for name, part in value.items()) + "}"
    return _quoted(value) if isinstance(value, str) else str(value)


def _is_one_value(key: str, text: str) -> bool:
    """Whether Hydra parses the text as one value: a word, a number, a list in brackets, quoted null."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return not OverridesParser.create().parse_override(f"{key}={text}").is_sweep_override()
    except HydraException:
        return False


def _quoted(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()
