"""Drawing the same latents with difflab's pipeline and with diffusers' `StableDiffusionPipeline`.

Both begin with the states of captions and end with latents: no text is encoded, and nothing is decoded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.devices import Way
from benchmarks.latent_peer import LatentUNet
from difflab.conditioning.base import Conditioner, ConditionerSet
from difflab.diffusion.build import build_process
from difflab.diffusion.config import DiscreteDiffusionConfig, ScaledLinearSchedule
from difflab.diffusion.guidance.config import ClassifierFreeGuidance
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.samplers.config import DDIMConfig
from difflab.errors import UserError
from difflab.pipelines.diffusing import DiffusingStage
from difflab.seeding import sample_seeds
from difflab.types import Batch, Conditioning

Drawer = Callable[[], Tensor]
"""Draws one batch of latents, float32 [B, C, h, w]."""

SEED = 0
SAME_LATENTS = 1e-3
"""Largest difference of the float32 latents, relative to the largest value."""
PROCESS = DiscreteDiffusionConfig(schedule=ScaledLinearSchedule(kind="scaled_linear"), prediction="eps")
"""Stable Diffusion's."""
PIXELS = 8
"""Of an image per place of its latent: what diffusers takes sizes in."""


class States(Conditioner):
    """States of captions that are in the batch already, and those of the empty caption.

    null: [L, D].
    """

    reads = ("states",)
    makes = ("tokens",)
    null: Tensor

    def __init__(self, null: Tensor) -> None:
        super().__init__(drop_rate=0.1)
        self.register_buffer("null", null)

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        states = batch["states"]
        return Conditioning(
            tokens=states if dropped is None else torch.where(dropped[:, None, None], self.null, states)
        )


@dataclass(frozen=True)
class LatentDrawing:
    """What every contender draws: a batch of latents, DDIM steps spaced as Stable Diffusion's, guidance of a scale."""

    about: LatentUNet
    network: nn.Module
    device: torch.device
    steps: int
    batch: int
    scale: float

    def states(self) -> tuple[Tensor, Tensor]:
        """Of the captions [B, L, D], and of the empty caption [L, D]."""
        generator = torch.Generator().manual_seed(1)
        return self.about.states(self.batch, generator), self.about.states(1, generator)[0]

    def ours(self, way: Way, *, one_batch: bool = True) -> Drawer:
        """As `difflab sample` draws it, before decoding. one_batch: both predictions of a step in one."""
        states, null = self.states()
        stage = DiffusingStage(
            way.placed(copy.deepcopy(self.network).eval(), self.device),
            ConditionerSet({"caption": States(null)}).to(self.device),
            build_process(PROCESS),
            (self.about.channels, self.about.side, self.about.side),
            sampler=DDIMConfig(kind="ddim", steps=self.steps, spacing="leading", steps_offset=1, final_level="first"),
            guidance=ClassifierFreeGuidance(
                kind="classifier_free", scale=self.scale, threshold="none", one_batch=one_batch
            ),
            autocast=way.autocast,
        )
        batch: Batch = {"index": torch.arange(self.batch), "states": states}
        return lambda: stage(batch, SEED)["image"]

    def theirs(self, way: Way, unet: nn.Module) -> Drawer:
        """The same by diffusers' whole pipeline, which computes both predictions in one batch."""
        pipeline = stable_diffusion_pipeline(way.placed(copy.deepcopy(unet).eval(), self.device))
        states, null = (one.to(self.device) for one in self.states())
        shape = (self.about.channels, self.about.side, self.about.side)
        pixels = PIXELS * self.about.side

        def draw() -> Tensor:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, way.autocast, enabled=way.autocast is not None),
            ):
                return pipeline(
                    height=pixels,
                    width=pixels,
                    num_inference_steps=self.steps,
                    guidance_scale=self.scale,
                    latents=SampleNoise(sample_seeds(SEED, range(self.batch)), self.device).randn(shape),
                    prompt_embeds=states,
                    negative_prompt_embeds=null.expand_as(states),
                    output_type="latent",
                    return_dict=False,
                )[0].float()

        return draw


def stable_diffusion_pipeline(unet: nn.Module) -> Any:
    """Stable Diffusion's pipeline in diffusers with its own schedule and DDIM, of the UNet alone."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    left_out = ("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor")
    pipeline = StableDiffusionPipeline(
        unet=unet, scheduler=scheduler, requires_safety_checker=False, **dict.fromkeys(left_out)
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def require_same_latents(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference relative to the largest value. Raises UserError where it is above `SAME_LATENTS`."""
    apart = float((ours - theirs).abs().max() / ours.abs().max())
    if not apart <= SAME_LATENTS:
        raise UserError(f"diffusers draws other latents than difflab: they differ by {apart:.1e}; report it")
    return apart
