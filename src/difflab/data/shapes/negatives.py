"""Hard negatives: captions that differ from a true one in one thing and are false (Yuksekgonul et al. 2023)."""

from __future__ import annotations

import itertools
import re

from difflab.data.shapes.description import OBJECT, RELATION

_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def other_relations(text: str) -> list[str]:
    """The caption with one of its relations turned into its opposite, one text for each of them."""
    return [f"{text[: m.start()]}{_OPPOSITE[m[0]]}{text[m.end() :]}" for m in RELATION.finditer(text)]


def other_bindings(text: str) -> list[str]:
    """The caption with the colours of two objects exchanged, one text for each pair whose colours and shapes differ.

    `a red circle above a blue square` becomes `a blue circle above a red square`: the same words.
    """
    found = []
    for first, second in itertools.combinations(OBJECT.finditer(text), 2):
        if first["colour"] == second["colour"] or first["shape"] == second["shape"]:
            continue
        (a, b), (c, d) = first.span("colour"), second.span("colour")
        found.append(_articles(text[:a] + second["colour"] + text[b:c] + first["colour"] + text[d:]))
    return found


def _articles(text: str) -> str:
    return re.sub(r"\ban?(?= (\w))", lambda m: "an" if m[1] in "aeiou" else "a", text)
