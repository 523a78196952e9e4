"""Combinations of what objects of a scene look like and where they stand, as words: `red circle above blue square`."""

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
    """What is said of an object: the words of it that are given; None is any."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None

    def fits(self, size: str, colour: str, shape: str) -> bool:
        """Whether an object is one of these."""
        return self.size in (None, size) and self.colour in (None, colour) and self.shape in (None, shape)

    def __str__(self) -> str:
        return " ".join(word for word in (self.size, self.colour, self.shape) if word is not None)


@dataclass(frozen=True)
class Combination:
    """An object, or an object that stands in a relation to another one."""

    look: Look
    relation: str | None = None
    other: Look | None = None

    @property
    def looks(self) -> tuple[Look, ...]:
        """Of the objects that it takes."""
        return (self.look,) if self.other is None else (self.look, self.other)

    def __str__(self) -> str:
        return str(self.look) if self.other is None else f"{self.look} {self.relation} {self.other}"


def read_combination(text: str) -> Combination:
    """The combination that the words say; articles may be there.

    Raises ValueError that names the word which is none, and all that there are.
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
