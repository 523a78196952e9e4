"""difflab's own export: a folder with `config.json` and `model.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from difflab.errors import UserError
from difflab.files import replacing, sha256_of, write_text
from difflab.interop.unpickle import read_weights

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_FORMAT = 1


def save_safetensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors in one piece: what was there stays whole until the new file is."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, temporary, metadata={"format": "pt"})
        # The library's own files can be read by their owner alone.
        temporary.chmod(mode)


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON the same way."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; UserError when the file is missing or is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
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
    """Write the weights, then config.json: the configuration, and under `difflab` the size and hash of the weights.

    made_of: where the weights come from, in plain containers, to be written there too.
    """
    folder = Path(folder)
    weights = folder / WEIGHTS
    save_safetensors(weights, state_dict)
    facts: dict[str, Any] = {
        "format": _FORMAT,
        "bytes": weights.stat().st_size,
        "sha256": sha256_of(weights),
        "tensors": len(state_dict),
        "parameters": sum(tensor.numel() for tensor in state_dict.values()),
    }
    if made_of is not None:
        facts["made_of"] = dict(made_of)
    save_json(folder / CONFIG, {"difflab": facts, "config": dict(config)})


def load_export(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights and the configuration of an exported folder, checked against the recorded hash.

    Raises UserError when a file is missing or damaged, or is not what was exported.
    """
    folder = Path(folder)
    content = _read_description(folder)
    weights = folder / WEIGHTS
    state = read_weights(weights).state
    if sha256_of(weights) != content["difflab"]["sha256"]:
        raise UserError(
            f"{weights}: is not the file that was exported (its sha256 differs from {CONFIG}); export again"
        )
    return state, content["config"]


def read_export_config(folder: str | Path) -> dict[str, Any]:
    """The configuration of an exported folder alone, without reading weights."""
    return _read_description(Path(folder))["config"]


def _read_description(folder: Path) -> dict[str, Any]:
    content = read_json(folder / CONFIG)
    if "difflab" not in content or "config" not in content:
        raise UserError(f"{folder / CONFIG}: not a difflab export (no `difflab` and `config` in it)")
    if content["difflab"].get("format") != _FORMAT:
        raise UserError(
            f"{folder / CONFIG}: format {content['difflab'].get('format')!r} is not {_FORMAT}; update difflab"
        )
    return content
