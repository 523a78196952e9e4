"""Autoencoders small enough to train in milliseconds on 16x16 shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from difflab.config.optimizer import LearningRateConfig, OptimizerConfig
from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.autoencoder.model import Autoencoder
from difflab.networks.patch_discriminator import PatchDiscriminator
from difflab.tasks.autoencoder.adversarial import hinge
from difflab.tasks.autoencoder.adversary import Adversary
from difflab.tasks.autoencoder.likelihood import ReconstructionLoss
from difflab.tasks.autoencoder.module import AutoencoderModule

REGULARIZERS: dict[str, dict[str, Any]] = {"kl": {"kind": "kl"}, "vq": {"kind": "vq", "codes": 16}}
START, STEPS = 3, 6


class Blurred(nn.Module):
    """A distance of images in the means of 4x4 pixels, in place of a perceptual one."""

    def forward(self, images: Tensor, originals: Tensor) -> Tensor:
        difference = nn.functional.avg_pool2d(images - originals, 4)
        return difference.square().flatten(1).mean(dim=1)


def small_network(kind: str = "kl", **options: Any) -> Autoencoder:
    config = AutoencoderConfig.model_validate(
        {
            "kind": "autoencoder",
            "base_channels": 8,
            "channel_mult": [1, 2],
            "blocks_per_level": 1,
            "middle_attention": False,
            "z_channels": 2,
            "latent_channels": 2,
            "norm_groups": 4,
            "regularizer": REGULARIZERS[kind],
            **options,
        }
    )
    return Autoencoder(config)


def small_module(
    kind: str = "kl",
    *,
    start: int | None = START,
    norm: Any = "batch",
    recompute: bool = False,
    learned: bool = False,
    weight: float = 0.5,
    restart_codes_every: int | None = None,
    network: dict[str, Any] | None = None,
    **options: Any,
) -> AutoencoderModule:
    """start: of the adversary; None for none."""
    torch.manual_seed(0)
    built = small_network(kind, **(network or {}))
    adversary = None
    if start is not None:
        theirs = OptimizerConfig(kind="adam", lr=2e-3, betas=[0.4, 0.8])
        discriminator = PatchDiscriminator(3, width=4, layers=2, norm=norm)
        adversary = Adversary(discriminator, hinge, weight, start, recompute, theirs)
    return AutoencoderModule(
        built,
        OptimizerConfig(kind="adam", lr=1e-3, betas=[0.5, 0.9], schedule=LearningRateConfig(warmup_steps=2)),
        error=ReconstructionLoss("l1", Blurred(), summed=kind == "kl", learned=learned),
        adversary=adversary,
        term="kl" if kind == "kl" else "codebook",
        regularizer_weight=1e-3 if kind == "kl" else 1.0,
        restart_codes_every=restart_codes_every,
        seed=3,
        max_steps=STEPS,
        **options,
    )
