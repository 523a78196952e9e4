"""Texts of a certain form, whose mistakes are told by an example instead of a regular expression."""

from __future__ import annotations

import re

from pydantic import AfterValidator


def matching(pattern: str, form: str) -> AfterValidator:
    """Returns the annotation of a text that fully matches a regular expression; others are a ValueError that says its
    `form`, as in `owner/model`."""
    expression = re.compile(pattern)

    def check(text: str) -> str:
        if expression.fullmatch(text) is None:
            raise ValueError(f"{text!r} is not of the form {form}")
        return text

    return AfterValidator(check)
