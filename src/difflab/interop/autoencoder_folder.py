"""First stages as whole models: in a folder of diffusers, or told by shapes; what is written to such a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difflab.config.model import ModelConfig
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.autoencoder_layout import autoencoder_of
from difflab.interop.autoencoder_model import stored_autoencoder
from difflab.interop.diffusers_autoencoder import (
    CLASSES,
    AutoencoderFile,
    from_diffusers_autoencoder,
    to_diffusers_autoencoder,
)
from difflab.interop.folders import Files, FolderFormat
from difflab.interop.layout import Described, Target
from difflab.interop.opening import DIFFUSERS_WEIGHTS, network_folder

OWN = "_difflab"
"""The key of config.json for the whole model; diffusers ignores keys with an underscore."""


def autoencoder_of_folder(path: Path) -> Described[ModelConfig] | None:
    """The model of a diffusers folder of `AutoencoderKL` or `VQModel`, or of a file in one; None for anything else.

    Raises UserError naming the file and the key if difflab has no such model.
    """
    config = network_folder(path) / native.CONFIG
    if not config.is_file():
        return None
    content = native.read_json(config)
    if content.get("_class_name") not in CLASSES:
        return None
    target = from_diffusers_autoencoder(config, content)
    stored = _stored_in(content, target)
    notes = _on_scale(config, native.validated(AutoencoderFile, content, config).scaling_factor)
    if stored is not None:
        return Described(stored, tuple(notes))
    if OWN in content:
        notes.append(f"{config}: its {OWN} is of another model than the rest says, and was not used")
    name = f"diffusers/{config.parent.resolve().name}"
    return Described(stored_autoencoder(autoencoder_of(target), target.image_size, name), tuple(notes))


def _on_scale(path: Path, scale: float) -> list[str]:
    if scale == 1:
        return []
    return [
        f"{path}: scaling_factor={scale:g} is what the latents of its diffusion model are multiplied by; those of the "
        "imported first stage are as they are"
    ]


def _stored_in(content: Mapping[str, Any], target: Target) -> ModelConfig | None:
    """The configuration that an export left, unless the file was changed since."""
    if not isinstance(content.get(OWN), Mapping):
        return None
    try:
        config = validate(ModelConfig, content[OWN])
        found = Target.of(config)
    except UserError:
        return None
    same = found.architecture() == target.architecture() and found.image_size == target.image_size
    return config if same else None


def _files(target: Target, config: ModelConfig | None) -> Files:
    content = to_diffusers_autoencoder(autoencoder_of(target), target.image_size)
    own = {} if config is None else {OWN: config.model_dump(mode="json")}
    return {native.CONFIG: {**content, **own}}


DIFFUSERS_AUTOENCODER_FOLDER = FolderFormat(
    DIFFUSERS_WEIGHTS,
    native.CONFIG,
    "_class_name",
    _files,
    remarks=lambda config, path: [
        f"{path}/{native.CONFIG} has scaling_factor=1: set it to the factor on latents of a diffusion model"
    ],
)
"""A folder that `AutoencoderKL.from_pretrained` or `VQModel.from_pretrained` loads."""
