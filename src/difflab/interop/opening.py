"""Finds and reads the weights at a path: a file, a diffusers folder or an exported difflab folder."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from difflab.config.validate import first_problem
from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.diffusers_autoencoder import CLASSES, from_diffusers_autoencoder
from difflab.interop.diffusers_condition import CONDITION, from_condition_config
from difflab.interop.diffusers_config import from_diffusers_config
from difflab.interop.diffusers_files import checked_unet
from difflab.interop.layout import Target
from difflab.interop.layouts import marked_layouts
from difflab.interop.open_clip_config import OPEN_CLIP_CONFIG
from difflab.interop.unpickle import read_content
from difflab.interop.unwrapping import WeightFile, read_weights, unwrap

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
PIPELINE = "model_index.json"
_SUBFOLDERS = ("unet", "unet_ema")
"""The network's subfolder in a diffusers pipeline, unless the folder is flat, and that of the averages of training."""
_FORMATS = ("safetensors", "bin")
_SHARD = re.compile(r".*-\d{5}-of-\d{5}\b.*\.(safetensors|bin)")
_NAMES = (("model", "pytorch_model"), ("diffusion_pytorch_model",), ("open_clip_model", "open_clip_pytorch_model"))
"""What weights are called in the folders of difflab and transformers, of diffusers and of open_clip."""
_WEIGHTS = re.compile(
    r"(?P<name>(diffusion_|open_clip_)?pytorch_model|(open_clip_)?model)"
    r"(\.(?!safetensors|bin)(?P<variant>[\w-]+))?\.(?P<format>safetensors|bin)"
    r"(?P<index>\.index(\.(?P<of>[\w-]+))?\.json)?"
)


def open_weights(path: Path, wrapper: str | None = None) -> WeightFile:
    """The tensors at `path`, under the names of today's version of the code. Raises UserError; see `read_weights`."""
    notes: list[str] = []
    file = _file_of(path, notes)
    found = _read_shards(file, wrapper) if file.name.endswith(".json") else read_weights(file, wrapper)
    state = found.state
    for layout in marked_layouts(state):
        try:
            state, more = layout.tidied(state)
        except UserError as error:
            raise UserError(f"{found.path}: {error}") from error
        notes += more
    return replace(found, state=state, notes=(*found.notes, *notes))


def holds_weights(folder: Path) -> bool:
    """Whether there are weights in a folder itself, by the names of their files."""
    return bool(_weights_in(folder, [name for names in _NAMES for name in names]))


def program_of(path: Path) -> str | None:
    """The program whose folder a path is, or in whose folder a weights file is: diffusers, transformers or open_clip;
    None for anything else."""
    if _is_diffusers(path):
        return "diffusers"
    if not path.is_dir():
        return None
    config = path / native.CONFIG
    if config.is_file() and "model_type" in native.read_json(config):
        return "transformers"
    return "open_clip" if (path / OPEN_CLIP_CONFIG).is_file() else None


def _is_diffusers(path: Path) -> bool:
    if not path.is_dir():
        return _is_diffusers_file(path)
    if any((path / name).is_file() for name in (PIPELINE, "scheduler_config.json")):
        return True
    if any(map(_is_diffusers_file, (file for folder in (path, path / "unet") for file in folder.glob("*_model.*")))):
        return True
    config = path / native.CONFIG
    return config.is_file() and "_class_name" in native.read_json(config)


def described_by_folder(path: Path) -> Target | None:
    """The model described by a diffusers folder (or by that of a weights file in one); None for anything else."""
    folder = network_folder(path)
    config = folder / native.CONFIG
    if not config.is_file() or (folder / native.WEIGHTS).is_file():
        return None
    content = native.read_json(config)
    if "model_type" in content:
        return None
    if "_class_name" not in content and "block_out_channels" not in content:
        raise UserError(f"{config}: not the configuration of a diffusers network (no _class_name in it)")
    if "cross_attention_dim" in content or content.get("_class_name") == CONDITION:
        return from_condition_config(config, content)
    if content.get("_class_name") in CLASSES:
        return from_diffusers_autoencoder(config, content)
    if content.get("_class_name", "UNet2DModel") == "UNet2DModel":
        checked_unet(config, content)
    try:
        return from_diffusers_config(content)
    except UserError as error:
        # The message names config.json, of which there may be several.
        raise UserError(str(error).replace(f"{native.CONFIG}:", f"{config}:", 1)) from error
    except ValidationError as error:
        raise UserError(f"{config}: {first_problem(error)[1]}") from error


def network_folder(path: Path) -> Path:
    """The folder of the network: the path itself, its unet/, or the folder of a file."""
    if not path.is_dir():
        return path.parent if _is_diffusers_file(path) else path
    if (path / native.CONFIG).is_file():
        return path
    inside = [path / name for name in _SUBFOLDERS if (path / name).is_dir()]
    if len(inside) > 1:
        raise UserError(f"{path}: holds both {' and '.join(_SUBFOLDERS)}; give one of them, as {inside[0]}")
    return inside[0] if inside else path


def _is_diffusers_file(path: Path) -> bool:
    found = _WEIGHTS.fullmatch(path.name)
    return found is not None and found["name"] == "diffusion_pytorch_model"


def _file_of(path: Path, notes: list[str]) -> Path:
    if not path.is_dir():
        if _SHARD.fullmatch(path.name):
            raise UserError(f"{path}: one part of several; give the folder they are in, or the .index.json beside them")
        return path
    folder = network_folder(path)
    for number, names in enumerate(_NAMES):
        if (chosen := _chosen(path, folder, names, notes)) is not None:
            others = _weights_in(folder, [name for later in _NAMES[number + 1 :] for name in later])
            if others:
                notes.append(f"took {chosen.name}; beside it lie weights for other programs, {_named(others)}")
            return chosen
    looked = ", ".join((native.WEIGHTS, *(f"diffusion_pytorch_model.{name}" for name in _FORMATS)))
    raise UserError(
        f"{path}: no weights in this folder; looked for {looked} (or its .index.json), here and in {_SUBFOLDERS[0]}/"
    )


def _chosen(path: Path, folder: Path, names: tuple[str, ...], notes: list[str]) -> Path | None:
    """The file of a folder's weights, if any is called so."""
    by_variant: dict[str | None, list[Path]] = {}
    for file in _weights_in(folder, names):
        matched = _WEIGHTS.fullmatch(file.name)
        assert matched is not None
        by_variant.setdefault(matched["variant"] or matched["of"], []).append(file)
    if not by_variant:
        return None
    if None not in by_variant and len(by_variant) > 1:
        files = [file for found in by_variant.values() for file in found]
        raise UserError(f"{path}: several variants of the weights, {_named(files)}; give one of the files")
    files = by_variant[None] if None in by_variant else next(iter(by_variant.values()))
    chosen = min(files, key=_preference)
    others = [file for found in by_variant.values() for file in found if file != chosen]
    if others:
        notes.append(f"took {chosen.name}; beside it lie {_named(others)}")
    elif None not in by_variant:
        notes.append(f"took {chosen.name}, the only variant of the weights")
    return chosen


def _weights_in(folder: Path, names: Collection[str]) -> list[Path]:
    matched = ((file, _WEIGHTS.fullmatch(file.name)) for file in sorted(folder.glob("*model*")))
    return [file for file, found in matched if found and found["name"] in names and not _SHARD.fullmatch(file.name)]


def _named(files: list[Path]) -> str:
    return ", ".join(file.name for file in files)


def _preference(file: Path) -> tuple[bool, bool]:
    """As in the library: safetensors first."""
    return ".bin" in file.name, file.name.endswith(".json")


def _read_shards(index: Path, wrapper: str | None) -> WeightFile:
    """The tensors of the files that an index names. Raises UserError if they are not those that it lists."""
    listed = native.read_json(index).get("weight_map")
    if not isinstance(listed, Mapping) or not listed:
        raise UserError(f"{index}: not an index of weights (no weight_map in it)")
    odd = [name for name in listed.values() if not isinstance(name, str) or Path(name).name != name]
    if odd:
        raise UserError(f"{index}: weight_map names {odd[0]!r}, which is no file beside it")
    state: dict[str, Any] = {}
    kinds: dict[str, None] = {}
    for name in dict.fromkeys(listed.values()):
        kind, content = read_content(index.parent / name)
        kinds[kind] = None
        state |= _part(index, index.parent / name, content, {key for key, file in listed.items() if file == name})
    state, beside, notes = unwrap(index, state, wrapper)
    files = len(set(listed.values()))
    return WeightFile(index, " and ".join(kinds), state, (f"put together from {files} files", *notes), beside)


def _part(index: Path, path: Path, content: Any, listed: set[str]) -> dict[str, Tensor]:
    found = (
        {key for key, value in content.items() if isinstance(value, Tensor)} if isinstance(content, Mapping) else set()
    )
    if found != listed:
        odd = sorted(found ^ listed)[0]
        where = "is missing from it" if odd in listed else "is in it and should not be"
        raise UserError(f"{path}: not the part that {index.name} lists: {odd} {where}; fetch both again")
    return {key: content[key] for key in sorted(found)}
