"""What has to be known of the image tower of a CLIP besides its weights."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from difflab.config.axes import IMAGE_TOWERS
from difflab.config.base import Config
from difflab.networks.towers.config import Activation, CLIPConfig, ImageTowerBase

Positive = Annotated[int, Field(ge=1)]


class CLIPImageArchitecture(Config):
    """Of the image tower of a CLIP of difflab, as in its network.

    image: the tower.
    activation: of its blocks.
    embedding_dim: width of the embedding of an image.
    image_size, channels: of the images that it takes.
    mean, std: of each channel of images within [0, 1], by which they are normalized.
    """

    image: Annotated[ImageTowerBase, IMAGE_TOWERS]
    activation: Activation
    embedding_dim: Positive
    image_size: Positive
    channels: Positive
    mean: list[float]
    std: list[float]

    @classmethod
    def of(cls, network: CLIPConfig, image_size: int) -> CLIPImageArchitecture:
        """Returns that of a CLIP, for images of that many pixels per side."""
        return cls(
            image=network.image,
            activation=network.activation,
            embedding_dim=network.embedding_dim,
            image_size=image_size,
            channels=network.channels,
            mean=network.mean,
            std=network.std,
        )
