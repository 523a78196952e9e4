"""A CLIP in a folder of transformers or open_clip: what the files beside the weights say, and which are written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from difflab.config.model import ModelConfig
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.clip_model import stored_clip
from difflab.interop.folders import Files, FolderFormat
from difflab.interop.layout import Described, Target
from difflab.interop.open_clip_config import OPEN_CLIP_CONFIG, from_open_clip_config, to_open_clip_config
from difflab.interop.transformers_config import (
    PREPROCESSOR,
    PROCESSOR,
    from_transformers_config,
    to_processor_config,
    to_transformers_config,
)
from difflab.networks.towers.config import CLIPConfig
from difflab.tasks.contrastive.config import ContrastiveModelConfig

OWN = "_difflab"
"""The key of a description for the whole model, with its tokenizer; the other programs ignore it."""

_OF_TRANSFORMERS = re.compile(r"(model|pytorch_model)\b.*\.(safetensors|bin|json)")


def clip_of_folder(path: Path) -> Described[ContrastiveModelConfig] | None:
    """The CLIP that the files at a path say: in a folder, or beside a file of weights; None if none of them is there.

    Raises UserError naming the file and the key if our CLIP is another, or if two of the files contradict each other.
    """
    folder = path if path.is_dir() else path.parent
    read: list[tuple[Path, Described[ContrastiveModelConfig]]] = []
    # A file by any other name is none of those that transformers writes with its config.json.
    if path.is_dir() or _OF_TRANSFORMERS.fullmatch(path.name):
        config = folder / native.CONFIG
        content = native.read_json(config) if config.is_file() else {}
        if str(content.get("model_type", "")).startswith("clip"):
            read.append((config, _of_transformers(config, content)))
    config = folder / OPEN_CLIP_CONFIG
    if config.is_file():
        read.append((config, _of_open_clip(config, native.read_json(config))))
    for file, other in read[1:]:
        _refuse_contradiction(read[0], (file, other))
    return read[0][1] if read else None


def _of_transformers(path: Path, content: Mapping[str, Any]) -> Described[ContrastiveModelConfig]:
    network, size, notes = from_transformers_config(path, content, _processor(path.parent))
    return _described(path, content, network, size, notes, "transformers", to_transformers_config)


def _of_open_clip(path: Path, content: Mapping[str, Any]) -> Described[ContrastiveModelConfig]:
    network, size, notes = from_open_clip_config(path, content)
    return _described(path, content, network, size, notes, "open_clip", to_open_clip_config)


def _described(
    path: Path,
    content: Mapping[str, Any],
    network: CLIPConfig,
    size: int,
    notes: list[str],
    code: str,
    written: Callable[[CLIPConfig, int], dict[str, Any]],
) -> Described[ContrastiveModelConfig]:
    stored = _stored_in(content, network, size)
    if stored is not None:
        return Described(stored, tuple(notes))
    if OWN in content:
        notes.append(f"{path}: its {OWN} is of another model than the rest says, and was not used")
    try:
        return Described(stored_clip(network, size, f"{code}/{path.parent.resolve().name}"), tuple(notes))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _stored_in(content: Mapping[str, Any], network: CLIPConfig, size: int) -> ContrastiveModelConfig | None:
    """The configuration that an export left, unless the file was changed since."""
    if not isinstance(content.get(OWN), Mapping):
        return None
    try:
        config = validate(ContrastiveModelConfig, content[OWN])
        same = Target.of(config).architecture() == Target(network, size).architecture()
    except UserError:
        return None
    return config if same else None


def _processor(folder: Path) -> tuple[Path, Mapping[str, Any]] | None:
    path = folder / PREPROCESSOR
    if path.is_file():
        return path, native.read_json(path)
    path = folder / PROCESSOR
    found = native.read_json(path).get("image_processor") if path.is_file() else None
    return (path, found) if isinstance(found, Mapping) else None


def _refuse_contradiction(
    one: tuple[Path, Described[ContrastiveModelConfig]], other: tuple[Path, Described[ContrastiveModelConfig]]
) -> None:
    first, second = (Target.of(described.config).architecture() for _, described in (one, other))
    for key, value in first.items():
        if second.get(key) != value:
            raise UserError(
                f"{one[0]}: its {key} is {json.dumps(value)}, but {other[0].name} beside it has "
                f"{json.dumps(second.get(key))}: remove the one that is not of these weights"
            )


def _clip_of(target: Target) -> CLIPConfig:
    if not isinstance(target.network, CLIPConfig):
        raise UserError(f"network.kind={target.network.kind} is no CLIP; use another layout")
    return target.network


def _own(config: ModelConfig | None) -> dict[str, Any]:
    return {} if config is None else {OWN: config.model_dump(mode="json")}


def _transformers_files(target: Target, config: ModelConfig | None) -> Files:
    network = _clip_of(target)
    return {
        native.CONFIG: {**to_transformers_config(network, target.image_size), **_own(config)},
        PREPROCESSOR: to_processor_config(network, target.image_size),
    }


def _open_clip_files(custom: bool) -> Callable[[Target, ModelConfig | None], Files]:
    def files(target: Target, config: ModelConfig | None) -> Files:
        content = to_open_clip_config(_clip_of(target), target.image_size)
        if custom:
            content["model_cfg"]["custom_text"] = True
        return {OPEN_CLIP_CONFIG: {**content, **_own(config)}}

    return files


_OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
TRANSFORMERS_FOLDER = FolderFormat(native.WEIGHTS, native.CONFIG, OWN, _transformers_files, patterns=(PREPROCESSOR,))
OPEN_CLIP_FOLDER = FolderFormat(_OPEN_CLIP_WEIGHTS, OPEN_CLIP_CONFIG, OWN, _open_clip_files(False))
OPEN_CLIP_CUSTOM_FOLDER = FolderFormat(_OPEN_CLIP_WEIGHTS, OPEN_CLIP_CONFIG, OWN, _open_clip_files(True))
