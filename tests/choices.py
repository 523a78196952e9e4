"""Choices of an axis that are there for the length of one test."""

from __future__ import annotations

import pytest

from difflab.config.registry import Kind, Registry


def add_choices(monkeypatch: pytest.MonkeyPatch, axis: Registry, *kinds: Kind) -> None:
    """Until the test ends the axis has these, as if a plugin had registered them."""
    for kind in kinds:
        monkeypatch.setitem(axis._entries, kind.name, kind)
