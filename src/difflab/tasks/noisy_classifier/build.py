"""Builds a noisy classifier, and the module that trains it, from a validated configuration."""

from __future__ import annotations

from difflab.diffusion.build import build_timesteps
from difflab.tasks.build import NoisedModel
from difflab.tasks.noised import noised_model
from difflab.tasks.noisy_classifier.config import NoisyClassifierModelConfig, NoisyClassifierTrainConfig
from difflab.tasks.noisy_classifier.module import NoisyClassifierModule


def build_model(config: NoisyClassifierModelConfig) -> NoisedModel:
    """Builds the model with initial weights. It is unconditional: the class is what it predicts."""
    return noised_model(config, {})


def build_module(config: NoisyClassifierTrainConfig) -> NoisyClassifierModule:
    """The LightningModule with initial weights."""
    model = build_model(config.model())
    classes = config.network.logits
    assert classes is not None, "networks of this task are classifiers"
    return NoisyClassifierModule(
        model.network,
        model.process,
        build_timesteps(config.diffusion, model.process),
        config.optimizer,
        classes=classes,
        seed=config.seed,
        max_steps=config.trainer.max_steps,
        accumulate=config.trainer.accumulate,
        gradient_clip=config.trainer.gradient_clip,
    )
