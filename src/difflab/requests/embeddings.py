"""Embeddings from an .npy file, one per row."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from difflab.console import printable
from difflab.data.bad_files import read_whole
from difflab.data.fields import decode_embedding
from difflab.errors import UserError


def read_embeddings(path: Path, where: str = "embeddings") -> list[Tensor]:
    """float32 [...] of each row of an array [n, ...]. Raises UserError if there is no such file."""
    shown = f"{where}={printable(path)}"
    if not path.is_file():
        why = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{shown} {why}: give an .npy file, [n, ...] with one row per sample")
    try:
        rows = decode_embedding(read_whole(path))
    except ValueError as error:
        raise UserError(f"{shown} holds no embeddings: {error}") from None
    if rows.ndim < 2:
        raise UserError(f"{shown} is {list(rows.shape)}, one embedding: give [n, ...], one row per sample")
    return list(rows)
