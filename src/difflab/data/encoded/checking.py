"""Which encoder computed a field of a data set, and whether that is the one a model needs."""

from __future__ import annotations

from difflab.config.data import Captions
from difflab.data.directory import DataDirectory
from difflab.data.encoded.field import EncodedField
from difflab.errors import UserError

_READABLE: dict[Captions, tuple[Captions, ...]] = {
    "whole": ("whole",),
    "first_line": ("first_line",),
    "lines": ("lines", "first_line"),
}
"""What was encoded -> what may be read of it."""


def encoder_of(directory: DataDirectory, field: str) -> EncodedField | None:
    """What the index says of a field; None if `difflab data encode` did not add it."""
    return directory.index.fields.get(field)


def require_encoder(directory: DataDirectory, field: str, sha256: str) -> EncodedField:
    """Returns what the index says of a field that was computed by the encoder of this hash.

    Raises UserError if the data set lacks the field, or another encoder computed it.
    """
    found = encoder_of(directory, field)
    again = "encode the data set with it: `difflab data encode`"
    if found is None:
        raise UserError(f"{directory.root} has no field {field} of the encoder with sha256 {sha256[:8]}: {again}")
    if found.sha256 != sha256:
        raise UserError(
            f"{directory.root}: {field} was computed by {found.by}, but the model needs the encoder with sha256 "
            f"{sha256[:8]}: {again}"
        )
    return found


def refuse_other_captions(directory: DataDirectory, field: str, captions: Captions) -> None:
    """Raises UserError if the arrays of a field are of other captions than those that `data.captions` reads."""
    found = encoder_of(directory, field)
    if found is None or found.captions is None or captions in _READABLE[found.captions]:
        return
    known = " or ".join(f"data.captions={one}" for one in _READABLE[found.captions])
    raise UserError(
        f"{directory.root}: {field} was computed with captions={found.captions}, but data.captions={captions}: set "
        f"{known}, or encode the data set with captions={captions}"
    )
