"""Encodes a sample of a source as the files of a shard."""

from __future__ import annotations

import io
import json
from typing import Any, Literal

import numpy as np

from difflab.data.arrays import encode_array

ImageFormat = Literal["png", "jpg", "webp"]

_PILLOW: dict[ImageFormat, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    # Full-resolution colour: halving it would blur the edges that a model is to learn.
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "webp": ("WEBP", {"lossless": True}),
}


def encode_sample(sample: dict[str, Any], image_format: ImageFormat) -> dict[str, bytes]:
    """{extension: content} of a sample (see `difflab.data.sources.base.Source`)."""
    extension, content = sample.get("file") or (image_format, encode_image(sample["image"], image_format))
    files: dict[str, bytes] = {extension: content}
    if sample.get("label") is not None:
        files["cls"] = str(int(sample["label"])).encode()
    if sample.get("caption") is not None:
        files["txt"] = sample["caption"].encode()
    if sample.get("json") is not None:
        files["json"] = _as_json(sample["json"])
    if sample.get("segmentation") is not None:
        files["seg.png"] = encode_image(sample["segmentation"], "png")
    if sample.get("embedding") is not None:
        files["npy"] = encode_array(np.asarray(sample["embedding"]))
    return files


def encode_image(image: np.ndarray, image_format: ImageFormat) -> bytes:
    """uint8 [H, W, 3] or [H, W] -> the bytes of an image file; png and webp are lossless, jpg has quality 95."""
    from PIL import Image

    name, options = _PILLOW[image_format]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, name, **options)
    return buffer.getvalue()


def _as_json(value: dict[str, Any]) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # A file name that is not text: escaped, it is restored exactly.
        return json.dumps(value, sort_keys=True).encode()
