"""From a network's configuration to the network."""

from __future__ import annotations

from torch import nn

from difflab.config.axes import NETWORKS
from difflab.config.network import NetworkBase


def build_network(cfg: NetworkBase, *, image_size: int, learned_variance: bool) -> nn.Module:
    """The network of a configuration, freshly initialised on torch's default device.

    image_size:       pixels per side of the images it denoises (or of the latents).
    learned_variance: the diffusion learns its variance, so a network that denoises has twice the output channels.
    Raises ValueError when the configuration does not fit the image size.
    """
    return NETWORKS.builder(cfg)(cfg, image_size=image_size, learned_variance=learned_variance)
