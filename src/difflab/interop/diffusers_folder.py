"""The folder of diffusers' unconditional models: flat, network and scheduler side by side."""

from __future__ import annotations

from difflab.config.model import DrawingModelConfig, ModelConfig
from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.diffusers_config import to_diffusers_config
from difflab.interop.diffusers_model import OWN, SCHEDULER
from difflab.interop.diffusers_sampling import how_to_draw
from difflab.interop.diffusers_scheduler import to_scheduler_config
from difflab.interop.folders import Files, FolderFormat
from difflab.interop.layout import Target
from difflab.interop.opening import DIFFUSERS_WEIGHTS, PIPELINE

_PIPELINE = {
    "_class_name": "DDPMPipeline",
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}


def _files(target: Target, config: ModelConfig | None) -> Files:
    """With the configuration of the whole model the folder includes a scheduler, and `DDPMPipeline.from_pretrained`
    loads it; a model with conditioners has no pipeline, because DDPMPipeline passes no conditioning to the network."""
    described: Files = {native.CONFIG: to_diffusers_config(target)}
    if config is not None:
        drawing = _drawing(config)
        described[SCHEDULER] = {**to_scheduler_config(drawing), OWN: drawing.model_dump(mode="json")}
        if not drawing.conditioning:
            described[PIPELINE] = _PIPELINE
    return described


def _drawing(config: ModelConfig) -> DrawingModelConfig:
    if not isinstance(config, DrawingModelConfig):
        raise UserError(f"diffusers has no pipeline that draws with {config.title}")
    return config


DIFFUSERS_FOLDER = FolderFormat(
    DIFFUSERS_WEIGHTS,
    native.CONFIG,
    "_class_name",
    _files,
    patterns=(PIPELINE,),
    remarks=lambda config, path: how_to_draw(_drawing(config), path),
)
"""A folder that `UNet2DModel.from_pretrained` loads."""
