"""Which files and folders are whole latent diffusion models, and in which layouts one leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from difflab.config.model import ModelConfig, NoisedModelConfig
from difflab.interop.latent.exported import refuse_used_folder
from difflab.interop.latent.parts import LatentModel
from difflab.interop.latent.pipeline import is_pipeline, read_pipeline
from difflab.interop.latent.pipeline_out import check_pipeline, save_pipeline
from difflab.interop.latent.stored import latent_config, with_parts
from difflab.tasks.denoising.config import DenoisingModelConfig

_CHECKS: dict[str, Callable[[DenoisingModelConfig], list[str]]] = {"diffusers": check_pipeline}
_WRITERS: dict[str, Callable[[Path, LatentModel], list[str]]] = {"diffusers": save_pipeline}
"""Layout -> what checks and writes a model with its first stage and text encoder."""


def read_whole(path: Path) -> LatentModel | None:
    """The latent diffusion model at a path, with all its parts; None if there is something else."""
    return read_pipeline(path) if is_pipeline(path) else None


def leaves_whole(config: ModelConfig, layout: str) -> bool:
    """Whether a model is written with its first stage in a layout of another program."""
    return layout in _WRITERS and isinstance(config, NoisedModelConfig) and config.first_stage is not None


def check_whole(path: Path, config: ModelConfig, layout: str) -> list[str]:
    """Checks that a model that `leaves_whole` can be written to `path`; returns remarks. Raises UserError if not."""
    refuse_used_folder(path)
    return _CHECKS[layout](latent_config(config))


def save_whole(path: Path, config: ModelConfig, state: Mapping[str, Tensor], layout: str) -> list[str]:
    """Writes a stored model with its first stage and text encoder; returns remarks.

    Raises UserError if the layout cannot represent it, or if there is something at the path already.
    """
    return _WRITERS[layout](path, with_parts(latent_config(config), state))
