"""Builds perceptual distances from their configurations."""

from __future__ import annotations

from difflab.config.axes import PERCEPTUAL
from difflab.networks.perceptual.config import Lite0Config, LPIPSConfig, NoPerceptualConfig, PerceptualBase
from difflab.networks.perceptual.distance import PerceptualDistance
from difflab.networks.perceptual.features import Lite0Features, VGG16Features


def build_perceptual(config: PerceptualBase) -> PerceptualDistance | None:
    """Returns the distance of a configuration, still without weights; None if it compares nothing."""
    return PERCEPTUAL.builder(config)(config)


def no_distance(config: NoPerceptualConfig) -> None:
    """None."""


def lite0(config: Lite0Config) -> PerceptualDistance:
    """Builds the distance in EfficientNet-lite0's features."""
    return PerceptualDistance(Lite0Features(config.network), config.channel_weights, style=config.style)


def lpips(config: LPIPSConfig) -> PerceptualDistance:
    """Builds LPIPS."""
    network = VGG16Features(config.network)
    return PerceptualDistance(network, config.channel_weights, style=config.style, dropout=config.dropout)
