"""Builds a classifier of clean images, and the module that trains it, from a validated configuration."""

from __future__ import annotations

from difflab.conditioning.base import ConditionerSet
from difflab.errors import user_errors
from difflab.networks.build import build_network
from difflab.tasks.build import Model
from difflab.tasks.classifier.config import CleanClassifierModelConfig, CleanClassifierTrainConfig
from difflab.tasks.classifier.module import ClassifierModule


def build_model(config: CleanClassifierModelConfig) -> Model:
    """Builds the model with initial weights. It is unconditional: the class is what it predicts."""
    with user_errors("network"):
        network = build_network(config.network, image_size=config.image_size, learned_variance=False)
    return Model(config, network, ConditionerSet({}))


def build_module(config: CleanClassifierTrainConfig) -> ClassifierModule:
    """Builds the LightningModule with initial weights."""
    classes = config.network.logits
    assert classes is not None, "networks of this task are classifiers"
    return ClassifierModule(
        build_model(config.model()).network,
        config.optimizer,
        classes=classes,
        seed=config.seed,
        max_steps=config.trainer.max_steps,
        accumulate=config.trainer.accumulate,
        gradient_clip=config.trainer.gradient_clip,
    )
