"""Text that must fit into an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def shortened(text: str, font: Font, width: int) -> str:
    """The text, truncated with dots to at most `width` pixels."""
    if font.getlength(text) <= width:
        return text
    kept = next((k for k in range(len(text), 0, -1) if font.getlength(text[:k] + "...") <= width), 0)
    return text[:kept].rstrip() + "..."
