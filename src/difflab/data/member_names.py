"""The names of a tar's members: the sample they belong to, and their role in it."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterator

from difflab.config.data import KeyRule
from difflab.data.decode import readable_endings

_USUAL = ("jpg", "jpeg", "png", "webp")
_ARRAY = "npy"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_UTF8 = re.compile(r"[\ud800-\udfff]")
_SKIPPED_BY_WEBDATASET = re.compile(r"__[^/]*__(/|$)")


def image_extensions() -> Iterator[str]:
    """All decoded extensions, without the dot; of several images of one key, the first of these is the sample's."""
    yield from _USUAL
    # Pillow takes a while to list them, and is seldom needed.
    yield from _unusual()


@functools.cache
def _unusual() -> tuple[str, ...]:
    return tuple(sorted({ending.removeprefix(".") for ending in readable_endings()} - {*_USUAL}))


@functools.cache
def payload_extensions() -> tuple[str, ...]:
    """Every sample has one of these extensions; a key without any (a README, a stray caption) is not a sample."""
    return (*image_extensions(), _ARRAY)


def is_image(extension: str) -> bool:
    """Whether files of this extension are decoded."""
    return extension in payload_extensions() and extension != _ARRAY


def safe_key(name: str, keys: KeyRule = "first_dot") -> tuple[str, str]:
    """(key, extension) of a member name; `("", "")` for a member that belongs to no sample.

    keys: `first_dot` cuts the base name at its first dot, as WebDataset does; `last_dot` at its last, for names like
        `22.05.png`. The extension is in lower case.

    The key is a relative path without `..`, empty parts or control characters, so it can name a file below a
    directory; bytes that are no UTF-8 (surrogates in `name`) are written %XX in it.
    """
    name = _NOT_UTF8.sub(_percent, _CONTROL.sub("_", name)).replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    if not parts or parts[-1].startswith(".") or _SKIPPED_BY_WEBDATASET.match("/".join(parts)):
        return "", ""
    if keys == "first_dot":
        stem, _, extension = parts[-1].partition(".")
    else:
        stem, _, extension = parts[-1].rpartition(".")
    if not stem or not extension:
        return "", ""
    return "/".join([*parts[:-1], stem]), extension.lower()


def place_name(name: str) -> str:
    """The normalized path of a member within its tar."""
    return posixpath.normpath(name).lstrip("/")


def link_target(name: str, linkname: str, *, symbolic: bool) -> str:
    """The path within the tar that a link names; a symbolic one is relative to its own folder, and may lead outside.

    A target outside keeps its leading `/` or `..`, which no path within the tar has.
    """
    if not symbolic:
        return place_name(linkname)
    return posixpath.normpath(posixpath.join(posixpath.dirname(place_name(name)), linkname))


def _percent(surrogate: re.Match[str]) -> str:
    code = ord(surrogate[0])
    return f"%{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"%u{code:04X}"
