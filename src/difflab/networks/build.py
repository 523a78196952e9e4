"""Builds a network from its configuration."""

from __future__ import annotations

from torch import nn

from difflab.config.axes import NETWORKS
from difflab.config.network import NetworkBase


def build_network(cfg: NetworkBase, *, image_size: int, learned_variance: bool) -> nn.Module:
    """Returns the network of a configuration, newly initialised on torch's default device.

    image_size:       pixels per side of the images (or latents) that it denoises.
    learned_variance: whether the diffusion learns its variance, which doubles the output channels of a denoiser.
    Raises ValueError if the configuration does not fit the image size.
    """
    return NETWORKS.builder(cfg)(cfg, image_size=image_size, learned_variance=learned_variance)
