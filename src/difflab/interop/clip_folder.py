"""A CLIP in a folder of transformers or open_clip: what the files beside the weights say, and which are written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Said:
    """What one file says: the network, the size of its images, and remarks on how it was read."""

    path: Path
    content: Mapping[str, Any]
    code: str
    network: CLIPConfig
    image_size: int
    notes: list[str]

    @property
    def target(self) -> Target:
        return Target(self.network, self.image_size)


def clip_target(path: Path) -> Target | None:
    """The CLIP that the files at a path describe, without its tokenizer; see `clip_of_folder`."""
    said = _said_at(path)
    return None if said is None else said.target


def clip_of_folder(path: Path) -> Described[ContrastiveModelConfig] | None:
    """The CLIP that the files at a path describe: in a folder, or beside a file of weights; None if none of them does.

    Raises UserError naming the file and the key if our CLIP is another, or if two of the files contradict each other.
    """
    said = _said_at(path)
    if said is None:
        return None
    notes = list(said.notes)
    stored = _stored_in(said)
    if stored is not None:
        return Described(stored, tuple(notes))
    if OWN in said.content:
        notes.append(f"{said.path}: its {OWN} is of another model than the rest says, and was not used")
    name = f"{said.code}/{said.path.parent.resolve().name}"
    try:
        return Described(stored_clip(said.network, said.image_size, name), tuple(notes))
    except UserError as error:
        raise UserError(f"{said.path}: {error}") from error


def _said_at(path: Path) -> _Said | None:
    folder = path if path.is_dir() else path.parent
    read: list[_Said] = []
    config = folder / native.CONFIG
    # A file by any other name is none of those that transformers writes with its config.json.
    if config.is_file() and (path.is_dir() or _OF_TRANSFORMERS.fullmatch(path.name)):
        content = native.read_json(config)
        if str(content.get("model_type", "")).startswith("clip"):
            said = from_transformers_config(config, content, _processor(folder))
            read.append(_Said(config, content, "transformers", *said))
    config = folder / OPEN_CLIP_CONFIG
    if config.is_file():
        content = native.read_json(config)
        read.append(_Said(config, content, "open_clip", *from_open_clip_config(config, content)))
    for other in read[1:]:
        _refuse_contradiction(read[0], other)
    return read[0] if read else None


def _stored_in(said: _Said) -> ContrastiveModelConfig | None:
    """The configuration that an export left, unless the files were changed since."""
    if not isinstance(said.content.get(OWN), Mapping):
        return None
    try:
        config = validate(ContrastiveModelConfig, said.content[OWN])
        same = Target.of(config).architecture() == said.target.architecture()
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


def _refuse_contradiction(one: _Said, other: _Said) -> None:
    theirs = other.target.architecture()
    for key, value in one.target.architecture().items():
        if theirs.get(key) != value:
            raise UserError(
                f"{one.path}: its {key} is {json.dumps(value)}, but {other.path.name} beside it has "
                f"{json.dumps(theirs.get(key))}: remove the one that is not of these weights"
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
