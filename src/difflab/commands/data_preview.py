"""`difflab data preview`: a contact sheet of a data set."""

from __future__ import annotations

from pathlib import Path

from difflab.config.data import KeyRule
from difflab.console import printable, say
from difflab.errors import UserError

MOST = 1000
"""The largest number of samples on a sheet; few programs open larger images."""
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def preview_data(path: str, *, split: str | None, n: int, out: str, keys: KeyRule, columns: int | None) -> None:
    """Writes the contact sheet and reports its path.

    Raises UserError if there is nothing to show, or an option is invalid.
    """
    if not 1 <= n <= MOST:
        raise UserError(f"--n {n} is not between 1 and {MOST}; give another number of samples")
    if columns is not None and columns < 1:
        raise UserError(f"--columns {columns} is less than one; leave it out, or give a number of columns")
    target = Path(out)
    if target.suffix.lower() not in _ENDINGS:
        raise UserError(f"--out {printable(out)} is not an image file; give a name that ends in {', '.join(_ENDINGS)}")
    if target.is_dir():
        raise UserError(f"--out {printable(out)} is a directory; give the name of an image file")
    file = next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None)
    if file is not None:
        raise UserError(f"--out {printable(out)}: {printable(file)} is a file, not a directory; give another place")
    from difflab.data.contact_sheet import contact_sheet, shown_samples
    from difflab.data.encoded.listing import arrays_of
    from difflab.data.opening import open_data
    from difflab.files import replacing
    from difflab.machine import machine_errors

    directory = open_data(path, keys)
    if split is None:
        split = "train" if directory.has_split("train") else next(iter(directory.index.splits))
    samples = shown_samples(directory, split, n)
    total = directory.split(split).samples
    if not samples:
        raise UserError(f"{printable(path)} has no samples in split {split!r}; `difflab data inspect` says why")
    said = f"{len(samples):,} of {total:,} samples of {split}"
    sheet = contact_sheet(samples, f"{path}: {said}", columns)
    with machine_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial, partial.open("wb") as written:
            sheet.save(written, "JPEG" if target.suffix.lower() in (".jpg", ".jpeg") else target.suffix[1:].upper())
    say(f"{out}: {said}")
    for array in arrays_of(directory):
        say(f"array {array.in_words()}")
    bad = [sample.caption for sample in samples if sample.pixels is None]
    if bad:
        say(f"{len(bad)} of them cannot be read, such as {bad[0]}")
