"""Text that must fit into an image."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def shortened(text: str, font: Font, width: int) -> str:
    """The text, truncated with dots to at most `width` pixels."""
    if font.getlength(text) <= width:
        return text
    kept = bisect.bisect_right(range(1, len(text) + 1), width, key=lambda k: font.getlength(text[:k] + "..."))
    return text[:kept].rstrip() + "..."
