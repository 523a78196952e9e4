"""Files of third-party tars that are not read: counted by reason, with an example and how to have them read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from difflab.config.base import Config

Reason = Literal["dotted", "no_image", "second_image", "unnamed", "long", "link", "sparse", "special", "extension"]

_SAYS: dict[Reason, str] = {
    "dotted": "images with further dots in their names (WebDataset counts those to the extension; data.keys=last_dot "
    "reads them)",
    "no_image": "files without an image of the same key (of an ending that Pillow reads)",
    "second_image": "further images of the same key (a sample has one: jpg comes before jpeg, png, webp and others)",
    "unnamed": "files that are hidden, without an extension, or in a __folder__",
    "long": "files with names of more than 1024 characters",
    "link": "links to nothing in the tar (make it with tar --dereference --hard-dereference)",
    "sparse": "sparse files (make the tar without --sparse)",
    "special": "devices or pipes",
    "extension": "files with an extension named key, or of a kind that only few samples have",
}


class LeftOut(Config):
    """Members that are not read, for one reason; example: the first of them, and its shard."""

    reason: Reason
    count: int = Field(ge=0)
    example: str


def in_total(kinds: Iterable[LeftOut]) -> list[LeftOut]:
    """One entry per reason, with its first example."""
    total: dict[Reason, LeftOut] = {}
    for kind in kinds:
        known = total.get(kind.reason)
        total[kind.reason] = known.model_copy(update={"count": known.count + kind.count}) if known else kind
    return [total[reason] for reason in _SAYS if reason in total]


def described(total: Sequence[LeftOut]) -> str:
    """All of it in one line."""
    reasons = "; ".join(f"{kind.count} {_SAYS[kind.reason]}, such as {kind.example}" for kind in total)
    return f"of the files in the tars, {sum(kind.count for kind in total)} are not read: {reasons}"
