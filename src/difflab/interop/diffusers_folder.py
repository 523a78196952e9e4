"""Writing a folder as diffusers publishes its unconditional models: flat, network and scheduler side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from difflab.config.model import ModelConfig
from difflab.interop import native
from difflab.interop.diffusers_config import to_diffusers_config
from difflab.interop.diffusers_scheduler import to_scheduler_config
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.layout import Target
from difflab.interop.opening import DIFFUSERS_WEIGHTS
from difflab.interop.tensor_files import write_safetensors

SCHEDULER, INDEX = "scheduler_config.json", "model_index.json"
_PIPELINE = {
    "_class_name": "DDPMPipeline",
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}


def save_diffusers(
    folder: Path, state: Mapping[str, Tensor], target: Target, config: ModelConfig | None = None
) -> list[Path]:
    """Write a folder that `UNet2DModel.from_pretrained` loads; returns the files written.

    With the configuration of the whole model it has a scheduler too, and `DDPMPipeline.from_pretrained` loads it; of a
    model with conditioners there is no pipeline, because that one tells the network nothing.
    Raises UserError when diffusers cannot be this network or this process.
    """
    official = DIFFUSERS.keymap(target).to_official(state)
    described = {native.CONFIG: to_diffusers_config(target)}
    if config is not None:
        described[SCHEDULER] = to_scheduler_config(config)
        if not config.conditioning:
            described[INDEX] = _PIPELINE
    weights = folder / DIFFUSERS_WEIGHTS[0]
    write_safetensors(weights, official)
    for name, content in described.items():
        native.save_json(folder / name, content)
    return [weights, *(folder / name for name in described)]
