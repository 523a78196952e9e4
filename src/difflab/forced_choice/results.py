"""Reading what raters sent back: every file whole, of one page, and each sitting once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difflab.config.validate import validate
from difflab.console import printable
from difflab.errors import UserError
from difflab.forced_choice.protocol import Results

_MOST_BYTES = 64 << 20
_SHORT = 12
"""Digits of a digest that are shown."""


def read_results(paths: Sequence[Path], page: str | None = None) -> dict[str, Results]:
    """The sittings by file.

    page: the digest of the page that they must be of, None if any page will do that is the same for all.
    Raises UserError for files that are no results, not all of a sitting, of another page, or the same sitting again.
    """
    sittings: dict[str, Results] = {}
    files: dict[str, str] = {}
    for path in paths:
        shown = printable(path)
        results = _read(path, shown)
        first = next(iter(sittings.values()), None)
        _refuse_other_page(shown, results, page, first, next(iter(sittings), ""))
        if results.sitting in files:
            raise UserError(f"{shown} is the same sitting as {files[results.sitting]}: give it once")
        files[results.sitting] = shown
        sittings[shown] = results
    return sittings


def _read(path: Path, shown: str) -> Results:
    content = _json(path, shown)
    if not isinstance(content, dict) or "sitting" not in content:
        raise UserError(f"{shown} is no results file: give what a page of `difflab fool-rate page` saved at its end")
    try:
        return validate(Results, content)
    except UserError as error:
        raise UserError(f"{shown}: {error}; give the file as the page saved it") from None


def _json(path: Path, shown: str) -> Any:
    if not path.exists():
        raise UserError(f"{shown} does not exist: give the JSON files that the page saved")
    if not path.is_file():
        raise UserError(f"{shown} is a folder: give the files in it, as in {shown}/*.json")
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{shown} is no results file: it has more than {_MOST_BYTES >> 20} MiB")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise UserError(f"{shown} is not JSON: give the file as the page saved it") from None


def _refuse_other_page(shown: str, results: Results, page: str | None, first: Results | None, other: str) -> None:
    wanted = page or (first.page if first is not None else results.page)
    if results.page != wanted:
        than = "the page given" if page is not None else f"{other} ({wanted[:_SHORT]})"
        raise UserError(f"{shown} is of another page ({results.page[:_SHORT]}) than {than}: give results of one page")
    if first is None:
        return
    if results.protocol != first.protocol or results.pairs() != first.pairs():
        raise UserError(
            f"{shown} and {other} say that they are of one page, but not that they were shown the same: one of them "
            "was changed by hand; leave it out"
        )
