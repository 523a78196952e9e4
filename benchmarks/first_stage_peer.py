"""Encoding and decoding by our autoencoder and by diffusers' `AutoencoderKL`, on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from benchmarks.devices import Way
from difflab.errors import UserError
from difflab.interop.autoencoder_layout import DIFFUSERS_AUTOENCODER
from difflab.interop.diffusers_autoencoder import KL, to_diffusers_autoencoder
from difflab.interop.layout import NETWORK, Target
from difflab.interop.presets import network_choice
from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.autoencoder.model import Autoencoder
from difflab.networks.build import build_network

Network = TypeVar("Network", bound=nn.Module)

AGREEMENT = 1e-4
"""Largest difference of moments and of images, relative to the largest value: else the two are not one network."""
ASKED_PLACES = 8
"""Places of a latent, per side, of the images on which both have to agree: all that a larger image asks of a layer."""


@dataclass(frozen=True)
class Coder:
    """encode: images [B, C, H, W] in [-1, 1] -> moments [B, 2Z, h, w]. decode: latents [B, Z, h, w] -> images; both
    give float32."""

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]


def autoencoder_choice(choice: str, size: int) -> AutoencoderConfig:
    """A KL autoencoder of conf/network; UserError for any other network, or if images of that size have no latent."""
    config = network_choice(choice)
    if not isinstance(config, AutoencoderConfig) or config.regularizer.codebook_size is not None:
        raise UserError(f"network={choice} is no KL autoencoder, which alone {KL} is; choose sd_vae, kl_f4, ...")
    if size % config.downsampling:
        raise UserError(f"{size} px is not a multiple of {config.downsampling}, by which {choice} makes images smaller")
    return config


def drawn_autoencoder(choice: str, size: int) -> Autoencoder:
    """The network with drawn weights, on the CPU."""
    torch.manual_seed(0)
    network = build_network(autoencoder_choice(choice, size), image_size=size, learned_variance=False)
    return cast("Autoencoder", network.eval().requires_grad_(False))


def diffusers_autoencoder(ours: Autoencoder, size: int) -> nn.Module:
    """diffusers' network with the weights of ours, on the CPU.

    Raises UserError where diffusers is missing, or `AutoencoderKL` cannot be this network.
    """
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        raise UserError("diffusers is not installed; `pip install 'difflab[peers]'`, or choose --part tiled") from None
    content = to_diffusers_autoencoder(ours.config, size)
    # Nobody waits for initial weights that are replaced at once.
    with torch.device("meta"):
        theirs = cast("nn.Module", AutoencoderKL(**{k: v for k, v in content.items() if not k.startswith("_")}))
    state = {NETWORK + name: tensor.clone() for name, tensor in ours.state_dict().items()}
    weights = DIFFUSERS_AUTOENCODER.keymap(Target(ours.config, size)).to_official(state)
    theirs.load_state_dict(weights, assign=True)
    return theirs.eval().requires_grad_(False)


def our_coder(network: Autoencoder, way: Way, device: torch.device) -> Coder:
    """difflab's, run one way, with a network of its own."""
    placed = _placed(network, way, device)
    return _in(way, device, lambda x: placed.encode(x).moments, placed.decode)


def their_coder(network: nn.Module, way: Way, device: torch.device) -> Coder:
    """diffusers', run one way, with a network of its own."""
    placed: Any = _placed(network, way, device)
    return _in(
        way,
        device,
        lambda x: placed.encode(x, return_dict=False)[0].parameters,
        lambda z: placed.decode(z, return_dict=False)[0],
    )


def require_agreement(ours: Coder, theirs: Coder, network: Autoencoder, device: torch.device) -> float:
    """The largest difference of both in float32, relative to the largest value.

    Raises UserError if they differ by more than `AGREEMENT`.
    """
    generator = torch.Generator().manual_seed(0)
    side = ASKED_PLACES * network.downsampling
    x = torch.rand(1, network.config.channels, side, side, generator=generator).mul(2).sub(1)
    z = torch.randn(1, network.latent_channels, ASKED_PLACES, ASKED_PLACES, generator=generator)
    differences = []
    for one, other in (
        (ours.encode(x.to(device)), theirs.encode(x.to(device))),
        (ours.decode(z.to(device)), theirs.decode(z.to(device))),
    ):
        differences.append(float((one - other).abs().max() / one.abs().max().clamp_min(1e-12)))
    largest = max(differences)
    if not largest <= AGREEMENT:
        raise UserError(f"diffusers' network is not this one: the outputs differ by {largest:.1e}; report it")
    return largest


def _placed(network: Network, way: Way, device: torch.device) -> Network:
    return cast("Network", way.placed(copy.deepcopy(network), device))


def _in(
    way: Way, device: torch.device, encode: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor]
) -> Coder:
    def run(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        @torch.inference_mode()
        def call(x: Tensor) -> Tensor:
            with torch.autocast(device.type, way.autocast, enabled=way.autocast is not None):
                return function(x).float()

        return call

    return Coder(run(encode), run(decode))
