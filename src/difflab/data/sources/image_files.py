"""Image files of a source: cropped to a square, or stored unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from difflab.config.data import Alpha
from difflab.console import printable
from difflab.data.bad_files import BadFile
from difflab.data.decode import BACKGROUND, BadImage, decode_image, frame_count, image_size
from difflab.data.sources.folder.config import Crop
from difflab.data.transforms import fit, fit_whole, refuse_other_size

FIRST_FRAME = "of several frames, the first is taken"
_SIGNATURES = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png"}


@dataclass(frozen=True)
class Cutting:
    """How images become squares of `resolution` pixels; None stores files unchanged, if a shard can hold them."""

    resolution: int | None = None
    crop: Crop = "adm"
    alpha: Alpha = "white"

    def sample(self, shown: object, content: bytes) -> dict[str, Any]:
        """`image`, or `file` and `size`, of a sample; see `difflab.data.sources.base.Source`.

        shown: the name of the image in messages.

        Raises BadFile if the bytes are no image, or of another size than crop=none allows.
        """
        try:
            if self.resolution is not None and self.crop == "none":
                options = "resolution, or crop to adm, edm, resize_short or pad"
                refuse_other_size(*image_size(content), self.resolution, options)
            pixels = decode_image(content, alpha=self.alpha)
            if self.resolution is not None:
                pixels = self._cut(pixels, self.resolution)
        except BadImage as error:
            raise BadFile(f"{printable(shown)} cannot be used: {error}") from None
        except ValueError as error:
            raise BadFile(f"{printable(shown)}: {error}") from None
        extension = stored_extension(content) if self.resolution is None else None
        if extension is None:
            return {"image": np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())}
        height, width = pixels.shape[-2:]
        return {"file": (extension, content), "size": (height, width)}

    def _cut(self, pixels: Tensor, resolution: int) -> Tensor:
        if self.crop == "pad":
            # alpha=drop does not define margins: as for images without transparency, they are white.
            return fit_whole(pixels, resolution, BACKGROUND.get(self.alpha, BACKGROUND["white"]))
        return fit(pixels, resolution, self.crop)


def stored_extension(content: bytes) -> str | None:
    """The extension of a file in a shard, by its bytes; None if it, or its first frame, is re-encoded."""
    if frame_count(content) > 1:
        return None
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((ext for signature, ext in _SIGNATURES.items() if content.startswith(signature)), None)


def frame_notes(content: bytes, name: str) -> dict[str, str]:
    """Remarks on an image of several frames."""
    return {} if frame_count(content) == 1 else {FIRST_FRAME: name}
