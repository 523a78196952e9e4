"""What every source of shards offers."""

from __future__ import annotations

from typing import Any, Protocol


class Source(Protocol):
    """Numbered samples of one split; sample i is always the same, in whichever process it is made.

    class_names: in the order of the labels, or None or empty where there are none.
    sample(i): a dict with either `image` uint8 [H, W, 3] or [H, W], or an image file to store as it is: `file`
        (extension, bytes) with `size` (height, width); and optionally `label` int, `caption` str, `json` dict.
    """

    @property
    def class_names(self) -> list[str] | None: ...

    def __len__(self) -> int: ...

    def sample(self, index: int) -> dict[str, Any]: ...
