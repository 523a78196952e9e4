"""Writes tensor files: atomically, with equal bytes for equal tensors, and OSErrors of a failing machine."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from difflab.files import replacing


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors and metadata to a .safetensors file; an existing file stays intact until the new one is complete.

    Equal tensors and metadata give equal files. Raises MachineError, with the path, if the machine refuses.
    """
    from safetensors.torch import save_file

    metadata = {"format": "pt", **(metadata or {})}
    with replacing(path) as temporary:
        save_file(_separate(state), temporary, metadata=metadata)
        _sort_metadata(temporary, metadata)


def write_torch(path: Path, state: Mapping[str, Tensor]) -> None:
    """The same with torch.save."""
    # Given a path, torch would write the temporary file's name into the archive.
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, file)


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory (tied weights): each name gets its own copy.
    seen: set[int] = set()
    separate = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if pointer in seen else tensor
        seen.add(pointer)
    return separate


def _sort_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Sorts the metadata of a safetensors file: the library writes it in a different order in every process."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        tensors = json.loads(file.read(length))
        del tensors["__metadata__"]
        header = {"__metadata__": dict(sorted(metadata.items())), **tensors}
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length, "the same header in another order"
        file.seek(8)
        file.write(text.ljust(length))
