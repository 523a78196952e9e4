"""Builds an autoencoder, and the module that trains it, from a validated configuration."""

from __future__ import annotations

from typing import cast

from difflab.conditioning.base import ConditionerSet
from difflab.errors import user_errors
from difflab.networks.autoencoder.model import Autoencoder
from difflab.networks.build import build_network
from difflab.networks.patch_discriminator import PatchDiscriminator
from difflab.networks.perceptual.build import build_perceptual
from difflab.tasks.autoencoder.adversarial import DISCRIMINATOR_LOSSES
from difflab.tasks.autoencoder.adversary import Adversary
from difflab.tasks.autoencoder.config import AutoencoderModelConfig, AutoencoderTrainConfig
from difflab.tasks.autoencoder.likelihood import ReconstructionLoss
from difflab.tasks.autoencoder.module import AutoencoderModule
from difflab.tasks.build import Model


def build_model(config: AutoencoderModelConfig) -> Model:
    """Builds the model with initial weights."""
    with user_errors("network"):
        network = build_network(config.network, image_size=config.image_size, learned_variance=False)
    return Model(config, network, ConditionerSet({}))


def build_module(config: AutoencoderTrainConfig) -> AutoencoderModule:
    """Builds the LightningModule with initial weights."""
    regularizer = config.autoencoder.regularizer
    # Networks that give reconstructions have what the module uses of an autoencoder.
    network = cast("Autoencoder", build_model(config.model()).network)
    error = ReconstructionLoss(
        config.pixel_loss,
        build_perceptual(config.perceptual),
        perceptual_weight=config.perceptual_weight,
        summed=regularizer.summed,
        log_variance=config.log_variance,
        learned=config.learn_log_variance,
    )
    return AutoencoderModule(
        network,
        config.optimizer,
        error=error,
        adversary=_adversary(config),
        term=regularizer.term,
        regularizer_weight=regularizer.weight,
        restart_codes_every=config.restart_codes_every,
        seed=config.seed,
        max_steps=config.trainer.max_steps,
        accumulate=config.trainer.accumulate,
        gradient_clip=config.trainer.gradient_clip,
    )


def _adversary(config: AutoencoderTrainConfig) -> Adversary | None:
    options = config.discriminator
    if options is None:
        return None
    return Adversary(
        PatchDiscriminator(config.data.channels, width=options.width, layers=options.layers, norm=options.norm),
        loss=DISCRIMINATOR_LOSSES[options.loss],
        weight=options.weight,
        start=options.start,
        recompute=options.recompute,
        optimizer=options.optimizer,
    )
