"""From a network's configuration to the network."""

from __future__ import annotations

from difflab.config.network import NetworkConfig, UNetEncoderConfig
from difflab.networks.plan import plan_encoder, plan_unet
from difflab.networks.unet import UNet
from difflab.networks.unet_encoder import UNetEncoder


def build_network(cfg: NetworkConfig, *, image_size: int, learned_variance: bool) -> UNet | UNetEncoder:
    """The network of a configuration, freshly initialised on torch's default device.

    image_size:       pixels per side of the images it denoises (or of the latents).
    learned_variance: the diffusion learns its variance, so a network that denoises has twice the output channels.
    Raises ValueError when the configuration does not fit the image size.
    """
    if isinstance(cfg, UNetEncoderConfig):
        return UNetEncoder(plan_encoder(cfg, image_size=image_size))
    return UNet(plan_unet(cfg, image_size=image_size, learned_variance=learned_variance))
