"""A latent UNet with transformer blocks, and diffusers' `UNet2DConditionModel` with the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from benchmarks.drawers import fill_zero_layers
from benchmarks.switches import allowing_tf32
from difflab.config.validate import first_problem
from difflab.errors import UserError
from difflab.interop.diffusers_condition import to_condition_config
from difflab.interop.latent_unets import DIFFUSERS_CONDITION_UNET
from difflab.interop.layout import NETWORK, Target
from difflab.networks.build import build_network
from difflab.networks.config import TransformerConfig, UNetConfig
from difflab.networks.unet import UNet
from difflab.types import Conditioning

PEER = "UNet2DConditionModel"
AGREEMENT = 1e-4
"""Largest difference of the two outputs, relative to the largest value: else the two are not the same network."""
ASKED_PLACES = 32
"""Places per side on which both have to agree: they ask of every layer all that more places do."""


@dataclass(frozen=True)
class LatentUNet:
    """A network like Stable Diffusion's: transformer blocks at all levels but the last, and in the middle.

    side: places of a latent per side. context: channels of a token. depth: transformer blocks in a row.
    tokens: of a caption. heads: of every attention.
    """

    side: int
    base: int
    mult: tuple[int, ...]
    blocks: int
    depth: int
    heads: int
    context: int
    tokens: int = 77
    channels: int = 4

    def config(self, *, checkpoint_activations: bool = False) -> UNetConfig:
        """Raises UserError for sizes that are no network, or none of diffusers'."""
        last = len(self.mult) - 1
        if self.mult[0] != 1:
            raise UserError(f"--mult {self.mult[0]} ...: the first level of {PEER} is as wide as --base; begin with 1")
        if self.side % 2**last:
            raise UserError(f"--side {self.side} is not a multiple of {2**last}, as {last + 1} levels need")
        odd = next((self.base * mult for mult in self.mult if self.base * mult % self.heads), None)
        if odd is not None:
            raise UserError(f"--heads {self.heads} do not divide {odd} channels; give other --heads, or another --base")
        try:
            return UNetConfig(
                channels=self.channels,
                base_channels=self.base,
                channel_mult=list(self.mult),
                blocks_per_level=self.blocks,
                attention_resolutions=[self.side // 2**level for level in range(last)],
                attention_heads=self.heads,
                resample="symmetric_conv",
                time_embedding="adm",
                norm_eps=1e-5,
                init="adm",
                context_channels=self.context,
                transformer=TransformerConfig(depth=self.depth),
                checkpoint_activations=checkpoint_activations,
            )
        except ValidationError as error:
            raise UserError(first_problem(error)[1]) from None

    def in_words(self) -> str:
        """As in `4x16x16 latents, 64 channels x 1, 2, 4, tokens 77x128`."""
        mult = ", ".join(map(str, self.mult))
        latents = f"{self.channels}x{self.side}x{self.side} latents"
        return f"{latents}, {self.base} channels x {mult}, tokens {self.tokens}x{self.context}"

    def latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Standard normal [count, channels, side, side]."""
        return torch.randn(count, self.channels, self.side, self.side, generator=generator)

    def states(self, count: int, generator: torch.Generator) -> Tensor:
        """What a text encoder might give: standard normal [count, tokens, context]."""
        return torch.randn(count, self.tokens, self.context, generator=generator)


class OurNetwork(nn.Module):
    """difflab's behind the signature that both have; what is compiled and laid out is the network inside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As training compiles it."""
        self.network.compile(*args, **kwargs)

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        """x [B, C, H, W], time float32 [B], tokens [B, L, D] -> [B, C, H, W]."""
        return self.network(x, time, Conditioning(tokens=tokens))


class TheirNetwork(nn.Module):
    """diffusers' behind the same."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        """As `OurNetwork` has it."""
        return self.unet(x, time, tokens, return_dict=False)[0]


def drawn_unet(about: LatentUNet, device: torch.device | str = "cpu") -> UNet:
    """difflab's network with drawn weights, none of them zero."""
    torch.manual_seed(0)
    with torch.device(device):
        network = _built(about.config(), about.side)
    fill_zero_layers(network)
    return network


def recomputing(network: UNet, about: LatentUNet) -> UNet:
    """A copy of `network` that recomputes its activations in the backward pass."""
    with torch.device("meta"):
        copied = _built(about.config(checkpoint_activations=True), about.side)
    copied.load_state_dict({name: tensor.clone() for name, tensor in network.state_dict().items()}, assign=True)
    return cast("UNet", copied.requires_grad_(True))


def _built(config: UNetConfig, side: int) -> UNet:
    return cast("UNet", build_network(config, image_size=side, learned_variance=False))


def diffusers_unet(ours: UNet, about: LatentUNet) -> nn.Module:
    """diffusers' network with the weights of ours, on its device, after both gave one answer to one input.

    Raises UserError where diffusers is missing, or gives another answer.
    """
    try:
        from diffusers import UNet2DConditionModel
    except ImportError:
        raise UserError(
            "diffusers is not installed; `pip install 'difflab[peers]'`, or choose --part latents"
        ) from None
    state = {NETWORK + name: tensor.detach().clone() for name, tensor in ours.state_dict().items()}
    target = Target(about.config(), about.side)
    described = {key: value for key, value in to_condition_config(target).items() if not key.startswith("_")}
    # Nobody waits for initial weights that are replaced at once.
    with torch.device("meta"):
        theirs = cast("nn.Module", UNet2DConditionModel(**described))
    theirs.load_state_dict(DIFFUSERS_CONDITION_UNET.keymap(target).to_official(state), assign=True)
    theirs.requires_grad_(True)
    require_agreement(ours, theirs, about)
    return theirs


@torch.no_grad()
def require_agreement(ours: nn.Module, theirs: nn.Module, about: LatentUNet) -> float:
    """The largest difference of both on two latents in float32, relative to the largest value.

    Raises UserError if it is above `AGREEMENT`.
    """
    generator = torch.Generator().manual_seed(0)
    small = LatentUNet(**{**vars(about), "side": min(about.side, ASKED_PLACES)})
    inputs = small.latents(2, generator), torch.tensor([3.0, 700.0]), small.states(2, generator)
    device, both = next(ours.parameters()).device, (OurNetwork(ours), TheirNetwork(theirs))
    modes = [one.training for one in (ours, theirs)]
    with allowing_tf32(False):
        one, other = (network.eval()(*(value.to(device) for value in inputs)) for network in both)
    for network, training in zip((ours, theirs), modes, strict=True):
        network.train(training)
    apart = float((one - other).abs().max() / one.abs().max().clamp_min(1e-12))
    if not apart <= AGREEMENT:
        raise UserError(f"diffusers' network is not this one: the outputs differ by {apart:.1e}; report it")
    return apart
