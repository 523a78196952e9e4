"""What every source of shards offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

NOT_REQUESTED = "not requested by n and val"
"""Why a source leaves out what it could have taken."""


class Source(Protocol):
    """Numbered samples of one split; sample i is always the same, in whichever process it is made.

    class_names: in the order of the labels, or None or empty where there are none.
    sample(i): a dict with either `image` uint8 [H, W, 3] or [H, W], or an image file to store as it is: `file`
        (extension, bytes) with `size` (height, width); and optionally `label` int, `caption` str, `json` dict, with
        `boxes` as `difflab.data.boxes` reads them, `embedding` an array of numbers, and
        `notes`, {what the user should know: the file it is about}. Raises `difflab.data.bad_files.BadFile` for a file
        that cannot be used.
    """

    @property
    def class_names(self) -> list[str] | None: ...

    def __len__(self) -> int: ...

    def sample(self, index: int) -> dict[str, Any]: ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A source that can tell whether it is the one that finished shards were made from."""

    def fingerprint(self) -> str:
        """Another text for other samples."""
        ...


@runtime_checkable
class FromFiles(Protocol):
    """A source that leaves files out."""

    @property
    def left_out(self) -> Mapping[str, Sequence[str]]:
        """{why: files}, of all splits together."""
        ...


@runtime_checkable
class Credited(Protocol):
    """A source of somebody else's work."""

    @property
    def credit(self) -> Mapping[str, str]:
        """What the index says of whose it is: source, licence, attribution."""
        ...
