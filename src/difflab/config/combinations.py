"""Descriptions of the objects in a scene and their relation, in words: `red circle above blue square`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Size = Literal["small", "medium", "large"]
Colour = Literal["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"]
Shape = Literal["circle", "square", "triangle", "diamond", "cross", "ring"]
Relation = Literal["above", "below", "left of", "right of"]

_ARTICLES = frozenset({"a", "an"})
_KINDS = {"size": get_args(Size), "colour": get_args(Colour), "shape": get_args(Shape)}
GRAMMAR = "[size] [colour] [shape], or two of them with a relation between"


@dataclass(frozen=True)
class Look:
    """The attributes of an object; None matches any."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None

    def fits(self, size: str, colour: str, shape: str) -> bool:
        """Whether an object has these attributes."""
        return self.size in (None, size) and self.colour in (None, colour) and self.shape in (None, shape)

    def __str__(self) -> str:
        return " ".join(word for word in (self.size, self.colour, self.shape) if word is not None)


@dataclass(frozen=True)
class Combination:
    """An object, or two objects in a relation."""

    look: Look
    relation: str | None = None
    other: Look | None = None

    @property
    def looks(self) -> tuple[Look, ...]:
        """The attributes of its one or two objects."""
        return (self.look,) if self.other is None else (self.look, self.other)

    def __str__(self) -> str:
        return str(self.look) if self.other is None else f"{self.look} {self.relation} {self.other}"


def read_combination(text: str) -> Combination:
    """Parses a combination from words; articles are ignored.

    Raises ValueError naming the word that is unknown, and all known words.
    """
    words = [word for word in text.lower().split() if word not in _ARTICLES]
    relations = [
        (name, start, start + len(parts))
        for name in get_args(Relation)
        for parts in [name.split()]
        for start in range(len(words))
        if words[start : start + len(parts)] == parts
    ]
    if len(relations) > 1:
        raise ValueError(f"{text!r} has {len(relations)} relations; give each a combination of its own")
    if not relations:
        return Combination(_read_look(words, text))
    name, start, stop = relations[0]
    return Combination(_read_look(words[:start], text), name, _read_look(words[stop:], text))


def _read_look(words: list[str], text: str) -> Look:
    said: dict[str, str] = {}
    for word in words:
        kind = next((kind for kind, names in _KINDS.items() if word in names), None)
        if kind is None:
            known = "; ".join(f"{kind}s: {', '.join(names)}" for kind, names in _KINDS.items())
            raise ValueError(f"{text!r} has the word {word!r}; {known}; relations: {', '.join(get_args(Relation))}")
        if kind in said:
            raise ValueError(f"{text!r} names two {kind}s of one object ({said[kind]}, {word}); write {GRAMMAR}")
        said[kind] = word
    if not said:
        raise ValueError(f"{text!r} does not say which object; write {GRAMMAR}")
    return Look(**said)
