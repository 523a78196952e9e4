"""Text that has to find room in a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def shortened(text: str, font: Font, width: int) -> str:
    """The text, or as much of its start as is `width` pixels wide at most with dots behind it."""
    if font.getlength(text) <= width:
        return text
    kept = next((k for k in range(len(text), 0, -1) if font.getlength(text[:k] + "...") <= width), 0)
    return text[:kept].rstrip() + "..."
