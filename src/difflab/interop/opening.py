"""Finding and reading the weights of a path: a file, a diffusers folder or a folder of our own."""

from __future__ import annotations

from pathlib import Path

from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.diffusers_config import from_diffusers_config
from difflab.interop.diffusers_unet import modern_attention_names
from difflab.interop.layout import Target
from difflab.interop.unwrapping import WeightFile, read_weights

DIFFUSERS_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_SUBFOLDER = "unet"
"""Where a diffusers pipeline keeps its network, unless the folder is flat."""


def open_weights(path: Path, wrapper: str | None = None) -> WeightFile:
    """The tensors at `path`, with diffusers' older attention keys under today's names. Raises UserError; see
    `read_weights`."""
    found = read_weights(_file_of(path), wrapper)
    renamed = modern_attention_names(found.state)
    if renamed.keys() == found.state.keys():
        return found
    notes = (*found.notes, "took the attention keys of older diffusers files (query, key, value, proj_attn)")
    return WeightFile(found.path, found.format, renamed, notes)


def described_by_folder(path: Path) -> Target | None:
    """The model that a diffusers folder says itself that it is; None for anything else."""
    folder = _network_folder(path)
    config = folder / native.CONFIG
    if not config.is_file() or (folder / native.WEIGHTS).is_file():
        return None
    return from_diffusers_config(native.read_json(config))


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    folder = _network_folder(path)
    names = (native.WEIGHTS, *DIFFUSERS_WEIGHTS)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{path}: no weights in this folder; looked for {', '.join(names)}, here and in {_SUBFOLDER}/")


def _network_folder(path: Path) -> Path:
    inside = path / _SUBFOLDER
    return inside if inside.is_dir() and not (path / native.CONFIG).is_file() else path
