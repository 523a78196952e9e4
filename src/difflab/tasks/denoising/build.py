"""Builds a diffusion model, and the module that trains it, from a validated configuration."""

from __future__ import annotations

from difflab.diffusion.build import build_loss, build_timesteps
from difflab.tasks.build import NoisedModel
from difflab.tasks.denoising.config import DenoisingModelConfig, DenoisingTrainConfig
from difflab.tasks.denoising.module import DenoisingModule
from difflab.tasks.noised import noised_model


def build_model(config: DenoisingModelConfig) -> NoisedModel:
    """The model with initial weights."""
    return noised_model(config, config.conditioning)


def build_module(config: DenoisingTrainConfig) -> DenoisingModule:
    """The LightningModule with initial weights."""
    model = build_model(config.model())
    return DenoisingModule(
        model.network,
        model.process,
        build_loss(config.diffusion, model.process),
        build_timesteps(config.diffusion, model.process),
        model.conditioners,
        config.optimizer,
        first_stage=model.first_stage,
        seed=config.seed,
        max_steps=config.trainer.max_steps,
        accumulate=config.trainer.accumulate,
        gradient_clip=config.trainer.gradient_clip,
    )
