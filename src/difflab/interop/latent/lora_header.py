"""What diffusers writes of a LoRA into the header of its file: peft's settings, which have the factor alpha."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from difflab.errors import UserError
from difflab.interop.config_files import ConfigFile
from difflab.interop.native import validated

_HEADER = "lora_adapter_metadata"


class _Settings(ConfigFile):
    """peft's `LoraConfig`: the keys on which the size of a change depends."""

    lora_alpha: Annotated[float, Field(gt=0)] = 8.0
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    use_rslora: bool = False


@dataclass(frozen=True)
class LoRAHeader:
    """Part of the model -> its settings; empty for files without them."""

    settings: Mapping[str, _Settings]

    def alpha(self, part: str, module: str, rank: int) -> float:
        """The alpha of a module's change, where its file has no tensor of it: the rank if nothing says another."""
        settings = self.settings.get(part)
        if settings is None:
            return rank
        named = (alpha for name, alpha in settings.alpha_pattern.items() if f".{module}".endswith(f".{name}"))
        alpha = next(named, settings.lora_alpha)
        # Rank-stabilized LoRA (Kalajdzievski 2023) divides by the root of the rank.
        return alpha * rank**0.5 if settings.use_rslora else alpha


def read_lora_header(path: Path, parts: Mapping[str, str]) -> LoRAHeader:
    """The header of a safetensors file. parts: the beginning of keys -> the part of the model; keys without any are of
    the first.

    Raises UserError if there are settings that cannot be read.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        written = (file.metadata() or {}).get(_HEADER)
    if written is None:
        return LoRAHeader({})
    try:
        content = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {_HEADER} in its header is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: {_HEADER} in its header holds a {type(content).__name__}, not an object")
    by_part = {part: _of(content, beginning) for beginning, part in parts.items()}
    found = {part: settings for part, settings in by_part.items() if settings}
    if not found:
        found = {next(iter(parts.values())): content}
    return LoRAHeader({part: validated(_Settings, settings, path) for part, settings in found.items()})


def _of(content: Mapping[str, Any], beginning: str) -> dict[str, Any]:
    return {key.removeprefix(beginning): value for key, value in content.items() if key.startswith(beginning)}
