"""Which encoder computed a field of a data set, and whether that is the one a model needs."""

from __future__ import annotations

from difflab.config.data import Captions, DataConfig
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


def refuse_other_images(directory: DataDirectory, field: str, data: DataConfig) -> None:
    """Raises UserError if the arrays of a field are of other images than those that `data` makes of the stored ones:
    of another size, cropped otherwise or at random, or mirrored. One vector is of an image as a whole, whatever the
    size at which the encoder saw it."""
    found = encoder_of(directory, field)
    if found is None or "image_size" not in found.settings:
        return
    said = f"{directory.root}: {field} was computed"
    if data.is_random_crop:
        raise UserError(
            f"{said} of one crop of each image, but data.crop={data.crop} makes another one in each epoch: set "
            f"data.crop={data.fixed_crop}, or train on images"
        )
    if data.flip and found.mirrored is None:
        raise UserError(
            f"{said} of images as they are, but data.flip=true mirrors half of them: set data.flip=false, or encode "
            "the mirrored ones too"
        )
    ours = {"image_size": data.image_size, "channels": data.channels, "crop": data.fixed_crop, "alpha": data.alpha}
    sizes = {data.image_size}
    if len(found.shape) == 1:
        del ours["image_size"]
    else:
        sizes.add(found.settings["image_size"])
    if sizes == {directory.index.image_size}:
        # No rule of cropping has anything to do.
        del ours["crop"]
    for key, value in ours.items():
        theirs = found.settings.get(key, value)
        if theirs != value:
            raise UserError(
                f"{said} with {key}={theirs}, but data.{key}={value}: set data.{key}={theirs}, or encode the data set "
                "again"
            )


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
