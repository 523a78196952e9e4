"""What is left out of other people's tars: counted by reason, with an example and the way to have it read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from difflab.config.base import Config

Reason = Literal["dotted", "no_image", "unnamed", "long", "link", "sparse", "special", "extension"]

_SAYS: dict[Reason, str] = {
    "dotted": "of images with further dots in the name, which WebDataset counts to the extension: data.keys=last_dot "
    "reads them",
    "no_image": "without an image of that key",
    "unnamed": "hidden, without an extension, or in a __folder__",
    "long": "with names of more than 1024 bytes",
    "link": "that are links to nothing in the tar: make it with tar --dereference --hard-dereference",
    "sparse": "stored as sparse files: make the tar without --sparse",
    "special": "that are devices or pipes",
    "extension": "with extensions that are too many to list",
}


class LeftOut(Config):
    """Members that are not read, for one reason; example: the first of them, and its shard."""

    reason: Reason
    count: int = Field(ge=0)
    example: str


def in_total(kinds: Iterable[LeftOut]) -> list[LeftOut]:
    """One entry for each reason, with the first example of it."""
    total: dict[Reason, LeftOut] = {}
    for kind in kinds:
        known = total.get(kind.reason)
        total[kind.reason] = known.model_copy(update={"count": known.count + kind.count}) if known else kind
    return [total[reason] for reason in _SAYS if reason in total]


def described(total: Sequence[LeftOut]) -> str:
    """All of it in one line."""
    reasons = "; ".join(f"{kind.count} {_SAYS[kind.reason]} (such as {kind.example})" for kind in total)
    return f"{sum(kind.count for kind in total)} members of the tars are not read: {reasons}"
