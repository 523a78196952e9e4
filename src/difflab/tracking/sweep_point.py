"""One point of a sweep: its values, and its `difflab` command."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from difflab.tracking.sweep_table import Value, shown

LONGEST_SLUG = 80
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class SweepPoint:
    """One point of the grid, as a command.

    number:    from 1, in the order of the grid, whose last parameter changes fastest.
    values:    swept parameter -> its value here.
    slug:      words made from the values, suitable as a folder name; unique within a sweep.
    arguments: all arguments of `difflab <command>`.
    """

    number: int
    values: Mapping[str, Value]
    slug: str
    command: str
    arguments: tuple[str, ...]

    @property
    def digest(self) -> str:
        """12 hex digits of the command, by which its earlier runs are recognized."""
        return hashlib.sha256("\0".join([self.command, *self.arguments]).encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """`guidance.scale=2.0 sampler=ddim`"""
        return " ".join(f"{key}={shown(value)}" for key, value in self.values.items())

    @property
    def short_label(self) -> str:
        """`scale=2.0 sampler=ddim`: keys by their last part, if it is unique within the point."""
        return " ".join(f"{short}={shown(self.values[key])}" for key, short in _short(list(self.values)).items())


def sweep_points(
    command: str, values: Sequence[Mapping[str, Value]], arguments: Sequence[Sequence[str]]
) -> list[SweepPoint]:
    """The points of a grid, from the `values` and the `arguments` of `difflab <command>` of each."""
    numbered = enumerate(zip(values, _slugs(values), arguments, strict=True), start=1)
    return [SweepPoint(number, own, slug, command, tuple(words)) for number, (own, slug, words) in numbered]


def as_number(text: str) -> Value:
    """Converts a command line value to a table value: a number if it is one."""
    if not _NUMBER.fullmatch(text):
        return text
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def given_again(values: Sequence[Value]) -> tuple[int, int] | None:
    """The positions of the first two equal values, such as 1 and 1.0; None if all differ."""
    seen: dict[tuple[bool, Value], int] = {}
    for place, value in enumerate(values):
        # In Python True equals 1.
        first = seen.setdefault((isinstance(value, bool), value), place)
        if first != place:
            return first, place
    return None


def _short(keys: Sequence[str]) -> dict[str, str]:
    last = {key: key.rpartition(".")[2] for key in keys}
    return {key: short if list(last.values()).count(short) == 1 else key for key, short in last.items()}


def _slugs(points: Sequence[Mapping[str, Value]]) -> list[str]:
    """A folder name for each point, from the last words of its keys and its values; no commas, which Hydra splits."""
    short = _short(list(points[0]))
    full = ["_".join(f"{short[key]}-{shown(value)}" for key, value in point.items()) for point in points]
    slugs = [re.sub(r"[^A-Za-z0-9._+-]+", "_", text) for text in full]
    clear = len(set(slugs)) == len(slugs) and max(map(len, slugs)) <= LONGEST_SLUG
    return slugs if clear else [f"{slug[:LONGEST_SLUG]}-{_short_hash(text)}" for slug, text in zip(slugs, full)]


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
