"""Finds the images and captions of a directory, and why every other file is left out."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from difflab.console import printable
from difflab.data.bad_files import is_of_the_file
from difflab.data.decode import readable_endings
from difflab.errors import UserError

HIDDEN = "hidden"
NO_IMAGE = "not read as images"
NO_IMAGE_BESIDE = "captions without an image"
DANGLING = "broken links"
LOOP = "links to a folder around them"
UNREADABLE = "folders that cannot be read"
NO_ACCESS = "files that cannot be read"
NO_FILE = "neither files nor folders"

_OF_THE_SYSTEM = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"})
_CAPTION = ".txt"

_Identity = tuple[int, int]


@dataclass
class Listing:
    """The files of a directory, by paths relative to it.

    images: sorted; captions: the caption file of an image, if there is one. left_out: all other files, by reason. Every
    file is in exactly one of the three.
    state: a hash of the names, sizes and modification times of the images and texts.
    """

    images: list[str] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    state: str = ""

    def leave_out(self, reason: str, *paths: str) -> None:
        """Records files that are not used."""
        if paths:
            self.left_out.setdefault(reason, []).extend(paths)


def list_folder(path: Path) -> Listing:
    """Lists everything below a directory; links are followed, hidden files and folders are left out.

    Raises UserError if the directory is missing or holds no images; errors of the machine (too many open files, a
    failing disk) stay OSErrors, because they would affect every later file.
    """
    if not path.is_dir():
        what = "is a file, not a directory" if path.exists() else "does not exist"
        raise UserError(f"image directory {printable(path)} {what}; give the path of a directory of images")
    listing = Listing()
    texts: list[str] = []
    endings = readable_endings()
    digest = hashlib.sha256()
    for name, found in _walk(path, "", ()):
        ending = PurePosixPath(name).suffix.lower()
        if isinstance(found, str):
            listing.leave_out(found, name)
            continue
        if ending in endings or ending == _CAPTION:
            digest.update(f"{name!a} {found.st_size} {found.st_mtime_ns}\n".encode())
        if ending in endings:
            listing.images.append(name)
        elif ending == _CAPTION:
            texts.append(name)
        else:
            listing.leave_out(NO_IMAGE, name)
    listing.state = digest.hexdigest()
    listing.images.sort()
    _match_captions(listing, texts)
    if not listing.images:
        others = f"; it has {in_words(listing.left_out)}" if listing.left_out else ""
        raise UserError(
            f"image directory {printable(path)} holds no images (.bmp, .gif, .jpg, .png, .tif, .webp or another of the "
            f"{len(endings)} endings that this Pillow reads){others}"
        )
    return listing


def in_words(left_out: Mapping[str, Sequence[str]]) -> str:
    """The number of files left out for each reason, and one: `hidden: 2 (.DS_Store), broken links: 1 (a.png)`."""
    return ", ".join(f"{reason}: {len(paths)} ({printable(min(paths))})" for reason, paths in left_out.items() if paths)


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _match_captions(listing: Listing, texts: list[str]) -> None:
    """Several images of one stem share a caption; of several texts of one stem, `.txt` comes before `.TXT`."""
    by_stem: dict[str, str] = {}
    for name in sorted(texts, key=lambda text: (not text.endswith(_CAPTION), text)):
        by_stem.setdefault(_stem(name), name)
    for image in listing.images:
        if (text := by_stem.get(_stem(image))) is not None:
            listing.captions[image] = text
    used = set(listing.captions.values())
    listing.leave_out(NO_IMAGE_BESIDE, *(name for name in texts if name not in used))


def _walk(
    root: Path, below: str, around: tuple[_Identity, ...], hidden: bool = False
) -> Iterator[tuple[str, str | os.stat_result]]:
    """(relative path, why it is left out, or its stat) of every file below the directory `below` of `root`.

    around: the directories above and including `below`, to which a link must not lead back.
    """
    try:
        status = (root / below).stat()
        with os.scandir(root / below) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if not below or not is_of_the_file(error):
            raise
        yield below, HIDDEN if hidden else f"{UNREADABLE} ({error.strerror})"
        return
    inside = (*around, (status.st_dev, status.st_ino))
    for entry in found:
        name = f"{below}/{entry.name}" if below else entry.name
        unseen = hidden or entry.name.startswith(".") or entry.name.lower() in _OF_THE_SYSTEM
        try:
            # The type of a link's target: links are followed.
            kind = entry.stat()
        except OSError as error:
            if not is_of_the_file(error):
                raise
            yield name, HIDDEN if unseen else DANGLING if entry.is_symlink() else f"{NO_ACCESS} ({error.strerror})"
            continue
        if stat.S_ISDIR(kind.st_mode) and (kind.st_dev, kind.st_ino) in inside:
            yield name, HIDDEN if unseen else LOOP
        elif stat.S_ISDIR(kind.st_mode):
            yield from _walk(root, name, inside, unseen)
        else:
            yield name, HIDDEN if unseen else (kind if stat.S_ISREG(kind.st_mode) else NO_FILE)
