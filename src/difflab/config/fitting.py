"""Checks that conditioners produce what the network reads, before either is built."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

JOINED = "concat"
"""The field whose parts are concatenated, so that their widths add up."""

ONE_OF_A_KIND = ("pooled", "aug_level")
"""Fields of `Conditioning` that only one conditioner can make; the other fields are merged."""

MASKS = ("token_mask", "grounding_mask")
"""Fields that mask another field; a network that reads the other field reads its mask."""


@dataclass(frozen=True)
class Reads:
    """What a network reads of its `Conditioning`.

    fields: all fields that it reads if present.
    needs:  the fields without which it does not run.
    widths: their required widths: channels of concat, numbers per token.
    keys:   the option that makes the network read a field, such as `network.context_channels`; null = not read.
    """

    fields: Collection[str]
    needs: Collection[str] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Makes:
    """What a conditioner produces.

    fields: of `Conditioning`; empty if it does not declare them, which the network then checks at run time.
    widths: their widths, as far as its configuration determines them.
    """

    fields: Collection[str] = ()
    widths: Mapping[str, int] = field(default_factory=dict)


def refuse_unfit(made: Mapping[str, Makes], reads: Reads) -> None:
    """Raises ValueError, in one line with both keys, for fields that the network does not read, that two conditioners
    make and cannot share, that have the wrong width, and for required fields that no conditioner makes.

    made: by the name of each conditioner.
    """
    for name, makes in made.items():
        for one in makes.fields:
            if one not in reads.fields and one not in MASKS:
                raise ValueError(_unread(name, one, makes.widths.get(one), reads))
    for one in ONE_OF_A_KIND:
        makers = _makers(one, made)
        if len(makers) > 1:
            raise ValueError(
                f"conditioning.{makers[0]} and conditioning.{makers[1]} both make {one}, which cannot be merged: "
                "leave one of the two out"
            )
    _refuse_other_channels(made, reads)
    for one, key in reads.keys.items():
        for name in _makers(one, made):
            width = made[name].widths.get(one)
            if one != JOINED and one in reads.widths and width not in (None, reads.widths[one]):
                raise ValueError(
                    f"{key}={reads.widths[one]}, but conditioning.{name} makes {one} of {width} numbers; set "
                    f"{key}={width}"
                )
    all_say = all(makes.fields for makes in made.values())
    for one in reads.needs:
        if all_say and not _makers(one, made):
            key = reads.keys[one]
            raise ValueError(
                f"{key}={reads.widths[one]}, so the network needs {one}, which nothing in conditioning makes; add a "
                f"conditioner that does, or set {key}=null"
            )


def _makers(one: str, made: Mapping[str, Makes]) -> list[str]:
    return [name for name, makes in made.items() if one in makes.fields]


def _unread(name: str, one: str, width: int | None, reads: Reads) -> str:
    key = reads.keys.get(one)
    if key is None:
        listed = ", ".join(one for one in reads.fields if one not in MASKS)
        return (
            f"conditioning.{name} makes {one}, which this kind of network does not read (it reads {listed}): "
            f"leave conditioning.{name} out, or choose another network"
        )
    wide = "the width of its " + one if width is None else str(width)
    return (
        f"conditioning.{name} makes {one}, but {key}=null, so the network reads none; set {key}={wide}, or leave "
        f"conditioning.{name} out"
    )


def _refuse_other_channels(made: Mapping[str, Makes], reads: Reads) -> None:
    if JOINED not in reads.widths or any(JOINED not in made[name].widths for name in _makers(JOINED, made)):
        return
    joined, wanted = sum(made[name].widths[JOINED] for name in _makers(JOINED, made)), reads.widths[JOINED]
    # A conditioner that does not declare its fields may make the rest.
    if joined == wanted or (joined < wanted and not all(makes.fields for makes in made.values())):
        return
    key = reads.keys[JOINED]
    raise ValueError(
        f"{key}={wanted}, but the conditioning concatenates {joined} channels to the input; "
        + (f"set {key}={joined}" if joined else f"choose conditioning=low_res, or {key}=0")
    )
