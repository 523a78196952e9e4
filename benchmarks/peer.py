"""diffusers' UNet2DModel with the architecture and the weights of one of ours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.config.network import UNetConfig
from difflab.errors import UserError
from difflab.interop.diffusers_unet import DIFFUSERS, to_diffusers_config
from difflab.interop.layout import Target

AGREEMENT = 1e-3
"""Largest difference of the two outputs, relative to the largest value: else the two are not the same network."""


class PeerNetwork(nn.Module):
    """UNet2DModel behind our signature; space to depth, which it does not know, happens around it."""

    def __init__(self, unet: nn.Module, patch_size: int) -> None:
        super().__init__()
        self.unet, self.patch_size = unet, patch_size

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, C, H, W], time float32 [B] -> [B, C, H, W]."""
        if self.patch_size == 1:
            return self.unet(x, time, return_dict=False)[0]
        out = self.unet(F.pixel_unshuffle(x, self.patch_size), time, return_dict=False)[0]
        return F.pixel_shuffle(out, self.patch_size)


def diffusers_network(ours: nn.Module, config: UNetConfig, image_size: int) -> PeerNetwork:
    """The same network in diffusers, on the CPU, after both gave the same answer to one input.

    Raises UserError where diffusers is missing or its UNet2DModel cannot be this network.
    """
    try:
        from diffusers import UNet2DModel
    except ImportError:
        raise UserError("diffusers is not installed; `pip install 'difflab[peers]'`, or leave the peer out") from None
    patch = config.patch_size
    inner = config.model_copy(update={"patch_size": 1, "channels": config.channels * patch**2})
    target = Target(inner, image_size // patch)
    keymap = DIFFUSERS.keymap(target)
    arguments = {key: value for key, value in to_diffusers_config(target).items() if not key.startswith("_")}
    theirs = UNet2DModel(**arguments)
    state = {name: tensor.detach().cpu() for name, tensor in ours.state_dict().items()}
    theirs.load_state_dict(keymap.to_official(state))
    peer = PeerNetwork(theirs, patch)
    _require_agreement(ours, peer, (2, config.channels, image_size, image_size))
    return peer


@torch.no_grad()
def _require_agreement(ours: nn.Module, theirs: nn.Module, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, time = torch.randn(shape, generator=generator), torch.tensor([3.0, 700.0])
    modes = [(module, module.training) for module in (ours, theirs)]
    answers = [module.eval()(x, time) for module, _ in modes]
    for module, training in modes:
        module.train(training)
    scale = max(float(answers[0].abs().max()), 1e-12)
    difference = float((answers[0] - answers[1]).abs().max()) / scale
    if not difference <= AGREEMENT:
        raise UserError(f"diffusers' network is not this one: the outputs differ by {difference:.1e}; report it")
