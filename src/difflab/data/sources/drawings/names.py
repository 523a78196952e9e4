"""Names, groups and families (an emoji with its variants) of emoji, by their code points."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from difflab.data.sources.drawings.groups import group_of_each
from difflab.data.sources.drawings.regions import REGIONS

_JOINER, _AS_EMOJI, _KEYCAP, _FEMALE, _MALE, _TO_THE_RIGHT = 0x200D, 0xFE0F, 0x20E3, 0x2640, 0x2642, 0x27A1
_BLACK_FLAG, _REGIONAL_A, _TAG, _LAST_TAG = 0x1F3F4, 0x1F1E6, 0xE0000, 0xE007F
_HEART, _KISS = 0x2764, 0x1F48B
_MAN, _WOMAN, _PERSON, _BOY, _GIRL, _CHILD = 0x1F468, 0x1F469, 0x1F9D1, 0x1F466, 0x1F467, 0x1F9D2
_ADULTS, _CHILDREN = {_MAN, _WOMAN, _PERSON}, {_BOY, _GIRL, _CHILD}
_TONES = {
    0x1F3FB: "light",
    0x1F3FC: "medium-light",
    0x1F3FD: "medium",
    0x1F3FE: "medium-dark",
    0x1F3FF: "dark",
}
_NAMES = {
    _PERSON: "person",
    # Unicode's own name says one gender or none, where the emoji comes in three.
    0x1F46F: "people with bunny ears",
    0x1F470: "person with veil",
    0x1F473: "person with turban",
    0x1F481: "person at information desk",
    0x1F486: "person getting face massage",
    0x1F487: "person getting haircut",
    0x1F645: "person gesturing no",
    0x1F646: "person gesturing ok",
    0x1F647: "person bowing deeply",
    0x1F64B: "person raising one hand",
    0x1F64D: "person frowning",
    0x1F64E: "person pouting",
    0x1F6A3: "person rowing boat",
    0x1F926: "person covering face",
    0x1F935: "person in tuxedo",
    0x1F937: "person shrugging",
    0x1F938: "person doing cartwheel",
    0x1F93D: "person playing water polo",
    0x1F93E: "person playing handball",
    0x1F9CD: "person standing",
    0x1F9CE: "person kneeling",
    0x1F9D4: "person with beard",
    # Later than the Unicode 14 of Python 3.11, so that names do not depend on which Python makes the data.
    0x1F6D8: "landslide",
    0x1F6DC: "wireless",
    0x1FA75: "light blue heart",
    0x1FA76: "grey heart",
    0x1FA77: "pink heart",
    0x1FA87: "maracas",
    0x1FA88: "flute",
    0x1FA89: "harp",
    0x1FA8A: "trombone",
    0x1FA8E: "treasure chest",
    0x1FA8F: "shovel",
    0x1FAAD: "folding hand fan",
    0x1FAAE: "hair pick",
    0x1FAAF: "khanda",
    0x1FABB: "hyacinth",
    0x1FABC: "jellyfish",
    0x1FABD: "wing",
    0x1FABE: "leafless tree",
    0x1FABF: "goose",
    0x1FAC6: "fingerprint",
    0x1FAC8: "hairy creature",
    0x1FACD: "orca",
    0x1FACE: "moose",
    0x1FACF: "donkey",
    0x1FADA: "ginger root",
    0x1FADB: "pea pod",
    0x1FADC: "root vegetable",
    0x1FADF: "splatter",
    0x1FAE8: "shaking face",
    0x1FAE9: "face with bags under eyes",
    0x1FAEA: "distorted face",
    0x1FAEF: "fight cloud",
    0x1FAF7: "leftwards pushing hand",
    0x1FAF8: "rightwards pushing hand",
}
_ROLES = {
    0x1F33E: "{} farmer",
    0x1F373: "{} cook",
    0x1F37C: "{} feeding a baby",
    0x1F384: "{} in the dress of Santa Claus",
    0x1F393: "{} student",
    0x1F3A4: "{} singer",
    0x1F3A8: "{} artist",
    0x1F3EB: "{} teacher",
    0x1F3ED: "{} factory worker",
    0x1F4BB: "{} technologist",
    0x1F4BC: "{} office worker",
    0x1F527: "{} mechanic",
    0x1F52C: "{} scientist",
    0x1F680: "{} astronaut",
    0x1F692: "{} firefighter",
    0x1F9AF: "{} with white cane",
    0x1F9B0: "{} with red hair",
    0x1F9B1: "{} with curly hair",
    0x1F9B2: "{} with a bald head",
    0x1F9B3: "{} with white hair",
    0x1F9BC: "{} in motorized wheelchair",
    0x1F9BD: "{} in manual wheelchair",
    0x1FA70: "{} dancing ballet",
    0x2695: "{} health worker",
    0x2696: "{} judge",
    0x2708: "{} pilot",
}
_TOGETHER = {0x1F91D: "holding hands", 0x1F430: "with bunny ears", 0x1FAEF: "wrestling"}
_SEQUENCES = {
    (0x1F344, 0x1F7EB): "brown mushroom",
    (0x1F34B, 0x1F7E9): "lime",
    (0x1F3F3, 0x1F308): "rainbow flag",
    (0x1F3F3, 0x26A7): "transgender flag",
    (0x1F3F4, 0x2620): "pirate flag",
    (0x1F408, 0x2B1B): "black cat",
    (0x1F415, 0x1F9BA): "service dog",
    (0x1F426, 0x1F525): "phoenix",
    (0x1F426, 0x2B1B): "black bird",
    (0x1F43B, 0x2744): "polar bear",
    (0x1F441, 0x1F5E8): "eye in speech bubble",
    (0x1F62E, 0x1F4A8): "face exhaling",
    (0x1F635, 0x1F4AB): "face with spiral eyes",
    (0x1F636, 0x1F32B): "face in clouds",
    (0x1F642, 0x2194): "head shaking horizontally",
    (0x1F642, 0x2195): "head shaking vertically",
    (0x1FAF1, 0x1FAF2): "handshake",
    (0x26D3, 0x1F4A5): "broken chain",
    (_HEART, 0x1F525): "heart on fire",
    (_HEART, 0x1FA79): "mending heart",
}
_ONE_FAMILY = (
    (0x1F474, 0x1F475, 0x1F9D3),
    (0x1F934, 0x1F478, 0x1FAC5),
    (0x1F385, 0x1F936, (_PERSON, 0x1F384)),
    (0x1F57A, 0x1F483),
    (0x1F930, 0x1FAC3, 0x1FAC4),
    (0x1F46B, 0x1F46C, 0x1F46D, (_PERSON, 0x1F91D, _PERSON)),
    (0x1F46F, (_PERSON, 0x1F430, _PERSON)),
    (0x1F93C, (_PERSON, 0x1FAEF, _PERSON)),
    (0x1F91D, (0x1FAF1, 0x1FAF2)),
    (0x1F470, 0x1F935),
)
"""Emoji of one meaning that differ in gender, or in how many skin tones they can have."""
_FAMILY = 0x1F46A
_COUPLE, _KISSING = 0x1F491, 0x1F48F


def _key(emoji: int | tuple[int, ...]) -> tuple[int, ...]:
    return (emoji,) if isinstance(emoji, int) else emoji


_FIRST_OF = {_key(emoji): _key(family[0]) for family in _ONE_FAMILY for emoji in family}


@dataclass(frozen=True)
class Emoji:
    """An emoji. name: in words. group: one of `groups.GROUPS`. family: the code points that its variants share."""

    name: str
    group: str
    family: tuple[int, ...]


def emoji_of(code_points: Sequence[int]) -> Emoji | None:
    """The emoji of a sequence of code points; None if Unicode does not define it, as for private characters.

    Variants of one emoji, of one family, differ in skin tone, gender, direction, or the members of a household.
    """
    bare = tuple(code for code in code_points if code not in (_JOINER, _AS_EMOJI))
    if len(bare) == 2 and all(_REGIONAL_A <= code < _REGIONAL_A + 26 for code in bare):
        return _flag(bare, "".join(chr(code - _REGIONAL_A + ord("A")) for code in bare))
    if len(bare) > 2 and bare[0] == _BLACK_FLAG and bare[-1] == _LAST_TAG:
        return _flag(bare, "".join(chr(code - _TAG) for code in bare[1:-1]).upper())
    if len(bare) == 2 and bare[1] == _KEYCAP:
        return Emoji(f"keycap with {unicodedata.name(chr(bare[0])).lower()}", "symbols", bare)
    group = group_of_each().get(bare[0])
    if group is None:
        return None
    parts = tuple(code for code in bare if code not in _TONES)
    return Emoji(_name(parts) + _tones(bare), group, family_of(parts))


def family_of(parts: tuple[int, ...]) -> tuple[int, ...]:
    """The code points common to the variants of an emoji; parts: its code points without skin tones and joiners."""
    if len(parts) > 1:
        parts = tuple(code for i, code in enumerate(parts) if i == 0 or code not in (_FEMALE, _MALE, _TO_THE_RIGHT))
    people = tuple(_PERSON if code in _ADULTS else _CHILD if code in _CHILDREN else code for code in parts)
    if _HEART in people[1:]:
        return (_KISSING if _KISS in people else _COUPLE,)
    if people[0] == _PERSON and _CHILD in people:
        return (_FAMILY,)
    return _FIRST_OF.get(people, people)


def _flag(code_points: tuple[int, ...], code: str) -> Emoji:
    written = code if len(code) == 2 else f"{code[:2]}-{code[2:]}"
    return Emoji(f"flag of {REGIONS.get(code, written)}", "flags", code_points)


def _name(parts: tuple[int, ...]) -> str:
    if parts in _SEQUENCES:
        return _SEQUENCES[parts]
    if _HEART in parts[1:]:
        what = "kiss" if _KISS in parts else "couple with heart"
        return f"{what}: {_listed(code for code in parts if code in _ADULTS)}"
    if len(parts) > 1 and parts[0] in _ADULTS and set(parts) <= _ADULTS | _CHILDREN:
        return f"family: {_listed(parts)}"
    if len(parts) == 3 and parts[1] in _TOGETHER and {parts[0], parts[2]} <= _ADULTS:
        first, last = _name_of_one(parts[0]), _name_of_one(parts[2])
        return f"{first} and {last} {_TOGETHER[parts[1]]}"
    base, *others = parts
    name = _name_of_one(base)
    facing = " facing right" if _TO_THE_RIGHT in others else ""
    if gender := "woman" if _FEMALE in others else "man" if _MALE in others else "":
        name = f"{gender} {name.removeprefix('people ').removeprefix('person ')}"
    others = [code for code in others if code not in (_FEMALE, _MALE, _TO_THE_RIGHT)]
    if base in _ADULTS and len(others) == 1 and others[0] in _ROLES:
        return _ROLES[others[0]].format(name) + facing
    return ", ".join([name, *map(_name_of_one, others)]) + facing


def _listed(code_points: Iterable[int]) -> str:
    return ", ".join(_name_of_one(code) for code in code_points)


def _name_of_one(code: int) -> str:
    """Unicode's name in lower case; for the older symbols without words about their typography."""
    name = _NAMES.get(code) or unicodedata.name(chr(code), f"U+{code:X}").lower()
    words = name.split()
    if code < 0x1F000 and not {"square", "circle"} & set(words):
        while words[0] in ("black", "white", "heavy"):
            words.pop(0)
    return " ".join(words)


def _tones(bare: tuple[int, ...]) -> str:
    tones = list(dict.fromkeys(_TONES[code] for code in bare[1:] if code in _TONES))
    return f", {' and '.join(tones)} skin tone{'s' if len(tones) > 1 else ''}" if tones else ""
