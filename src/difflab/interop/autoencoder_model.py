"""A first stage as a whole model."""

from __future__ import annotations

from difflab.config.model import ModelConfig
from difflab.config.validate import validate
from difflab.networks.autoencoder.config import AutoencoderConfig

IMAGE_SIZE = 256
"""Pixels per side of the images that all published first stages were trained on; a network takes other sizes too."""


def stored_autoencoder(network: AutoencoderConfig, image_size: int, name: str) -> ModelConfig:
    """The model that is stored. Raises UserError if images of that many pixels per side have no latent."""
    return validate(
        ModelConfig,
        {
            "experiment": name,
            "task": "autoencoder",
            "image_size": image_size,
            "channels": network.channels,
            "network": network.plain(),
        },
    )
