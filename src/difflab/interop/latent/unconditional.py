"""Reads the folder of diffusers' LDMPipeline: latents that nothing conditions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difflab.diffusion.guidance.config import NoGuidance
from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.diffusers_autoencoder import AutoencoderFile
from difflab.interop.diffusers_model import SCHEDULER
from difflab.interop.latent.assembling import UNET, Pipeline
from difflab.interop.latent.pipeline_parts import LATENT_DIFFUSION, described_part
from difflab.interop.latent.schedulers import read_scheduler

STAGE = "vqvae"
"""The folder of the first stage."""
_CLIPPING = ("DDIMScheduler", "DDPMScheduler")
"""The schedulers that clip x0 unless their file says otherwise."""


def described_unconditional(path: Path, notes: list[str]) -> Pipeline:
    """What a folder whose parts are there says of its model. notes: on the folder.

    Raises UserError, in one line, for a part that difflab has not, and for parts that do not fit together.
    """
    network, stage = described_part(path / UNET, "unet"), described_part(path / STAGE, "autoencoder")
    if network.conditioning or network.learned_variance:
        what = "classes (num_class_embeds)" if network.conditioning else "variances (out_channels)"
        raise UserError(
            f"{path / UNET / native.CONFIG}: a network with {what}, for which {LATENT_DIFFUSION} has no use"
        )
    scheduler = path / "scheduler" / SCHEDULER
    content = native.read_json(scheduler)
    _refuse_clipping(scheduler, content)
    process, sampler, of_scheduler = read_scheduler(scheduler, content, network.learned_variance)
    scale, of_scale = _scale(path / STAGE / native.CONFIG)
    guidance, notes = NoGuidance(kind="none"), [*notes, *of_scheduler, *of_scale]
    return Pipeline(path, network, STAGE, stage, scale, process, sampler, guidance, {}, tuple(notes))


def _refuse_clipping(path: Path, content: Mapping[str, Any]) -> None:
    if content.get("_class_name") in _CLIPPING and content.get("clip_sample", True):
        raise UserError(
            f"{path}: clip_sample=true, which it is unless the file says otherwise, clips latents to [-1, 1], and they "
            "have no such range: set it to false"
        )


def _scale(path: Path) -> tuple[float, list[str]]:
    """The factor on latents, and a remark where the file says none: it is older than the library's division by it."""
    content = native.read_json(path)
    if "scaling_factor" in content:
        return native.validated(AutoencoderFile, content, path).scaling_factor, []
    return 1.0, [
        f"{path} has no scaling_factor: latents are taken as they are, as the library did when it was written; today "
        "it divides them by 0.18215 and draws other images (huggingface/diffusers#6725)"
    ]
