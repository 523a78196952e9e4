"""Writes a folder in the form of diffusers' unconditional models: flat, network and scheduler side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from difflab.config.model import DrawingModelConfig
from difflab.files import replacing_together
from difflab.interop import native
from difflab.interop.diffusers_config import to_diffusers_config
from difflab.interop.diffusers_model import OWN, SCHEDULER
from difflab.interop.diffusers_scheduler import to_scheduler_config
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.layout import Target
from difflab.interop.opening import DIFFUSERS_WEIGHTS, PIPELINE
from difflab.interop.tensor_files import write_safetensors

_PIPELINE = {
    "_class_name": "DDPMPipeline",
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}


def save_diffusers(
    folder: Path, state: Mapping[str, Tensor], target: Target, config: DrawingModelConfig | None = None
) -> list[Path]:
    """Writes a folder that `UNet2DModel.from_pretrained` loads; returns the files written.

    With the configuration of the whole model it includes a scheduler, and `DDPMPipeline.from_pretrained` loads it; a
    model with conditioners has no pipeline, because DDPMPipeline passes no conditioning to the network.
    All of the files appear, or none does. Raises UserError if diffusers cannot represent this network or this process.
    """
    described = diffusers_files(target, config)
    official = DIFFUSERS.keymap(target).to_official(state)
    with replacing_together(folder) as temporary:
        write_safetensors(temporary / DIFFUSERS_WEIGHTS, official)
        for name, content in described.items():
            native.save_json(temporary / name, content)
    return [folder / name for name in (DIFFUSERS_WEIGHTS, *described)]


def diffusers_files(target: Target, config: DrawingModelConfig | None) -> dict[str, dict[str, Any]]:
    """Name -> content of the JSON files of the folder. Raises UserError if diffusers cannot represent this model."""
    described: dict[str, dict[str, Any]] = {native.CONFIG: to_diffusers_config(target)}
    if config is not None:
        described[SCHEDULER] = {**to_scheduler_config(config), OWN: config.model_dump(mode="json")}
        if not config.conditioning:
            described[PIPELINE] = _PIPELINE
    return described
