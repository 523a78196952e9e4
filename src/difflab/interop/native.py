"""difflab's own folders: an export with `config.json` and `model.safetensors`, and the configuration of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from torch import Tensor

from difflab.config.model import ModelConfig
from difflab.config.parts import FrozenConfig, with_frozen
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.files import replacing_together, sha256_of, write_text
from difflab.interop.tensor_files import write_safetensors
from difflab.interop.unpickle import read_tensors, refuse_what_is_no_file

Model = TypeVar("Model", bound=BaseModel)

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_FORMAT = 1


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON the same way everywhere."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; UserError if the file is missing or holds none."""
    refuse_what_is_no_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not an object")
    return content


def save_export(
    folder: str | Path,
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any],
    made_of: Mapping[str, Any] | None = None,
) -> None:
    """Writes the weights and config.json: the configuration, and under `difflab` the size and hash of the weights.

    Both or neither: on an error the folder stays as it was.
    made_of: the origin of the weights, in plain containers, recorded in config.json.
    """
    with replacing_together(Path(folder)) as temporary:
        weights = temporary / WEIGHTS
        write_safetensors(weights, state_dict)
        facts: dict[str, Any] = {
            "format": _FORMAT,
            "bytes": weights.stat().st_size,
            "sha256": sha256_of(weights),
            "tensors": len(state_dict),
            "parameters": sum(tensor.numel() for tensor in state_dict.values()),
        }
        if made_of is not None:
            facts["made_of"] = dict(made_of)
        save_json(temporary / CONFIG, {"difflab": facts, "config": dict(config)})


def load_export(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads the weights and the configuration of an exported folder, checked against the recorded hash.

    Raises UserError if a file is missing or damaged, or is not what was exported.
    """
    folder = Path(folder)
    content = _read_description(folder)
    weights = folder / WEIGHTS
    state = read_tensors(weights)
    if sha256_of(weights) != content["difflab"].get("sha256"):
        raise UserError(
            f"{weights}: is not the file that was exported (its sha256 differs from {CONFIG}); export again"
        )
    return state, content["config"]


def exported_model(folder: str | Path) -> ModelConfig:
    """The model of an exported folder, without reading weights; frozen parts in the folder are found where it is now.

    Raises UserError if the folder is no export, or its configuration is not valid.
    """
    folder = Path(folder)
    config = validated(ModelConfig, _read_description(folder)["config"], folder / CONFIG)
    return with_frozen(config, partial(_in_folder, folder.absolute()))


def _in_folder(folder: Path, part: FrozenConfig) -> FrozenConfig:
    """A part with its path as an absolute one; a relative one is that in the folder."""
    if part.path is None or Path(part.path).expanduser().is_absolute():
        return part
    return part.model_copy(update={"path": str(folder / part.path)})


def validated(model: type[Model], data: Mapping[str, Any], path: Path) -> Model:
    """`validate` for the content of a file, which its error messages name."""
    try:
        return validate(model, data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _read_description(folder: Path) -> dict[str, Any]:
    content = read_json(folder / CONFIG)
    facts = content.get("difflab")
    if not isinstance(facts, dict) or not isinstance(content.get("config"), dict):
        raise UserError(f"{folder / CONFIG}: not a difflab export (no `difflab` and `config` in it)")
    if facts.get("format") != _FORMAT:
        raise UserError(f"{folder / CONFIG}: format {facts.get('format')!r} is not {_FORMAT}; update difflab")
    return content
