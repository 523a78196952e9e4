"""The patch discriminator (Isola et al. 2017, PatchGAN), as VQGAN and latent diffusion use it."""

from __future__ import annotations

import itertools
from typing import Literal

from torch import Tensor, nn

from difflab.networks.actnorm import ActNorm2d
from difflab.networks.batch_norm import GlobalBatchNorm2d

DiscriminatorNorm = Literal["batch", "actnorm"]

_KERNEL = 4
_WIDEST = 8
"""The largest multiple of the width."""
_STD = 0.02


class PatchDiscriminator(nn.Module):
    """One logit per patch of an image: positive where it looks real.

    channels: of the images.
    width:    channels after the first convolution; each further one has twice as many, at most 8 times the width.
    layers:   the number of convolutions that halve the resolution. With 3 a logit sees 70x70 pixels, with 2 34x34.
    norm:     batch: batch normalization over the images of all processes; actnorm: `ActNorm2d`.

    Weights of convolutions begin as N(0, 0.02), scales of norms as N(1, 0.02).
    Raises ValueError if `layers` is less than 1.
    """

    def __init__(
        self, channels: int = 3, *, width: int = 64, layers: int = 3, norm: DiscriminatorNorm = "batch"
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"a patch discriminator has at least one layer, not {layers}")
        widths = [width * min(2**layer, _WIDEST) for layer in range(layers + 1)]
        modules: list[nn.Module] = [_conv(channels, width, stride=2), _activation()]
        for layer, (before, after) in enumerate(itertools.pairwise(widths), start=1):
            stride = 2 if layer < layers else 1
            # A batch norm subtracts the mean, and with it any bias.
            modules += [_conv(before, after, stride=stride, bias=norm != "batch"), _norm(norm, after), _activation()]
        self.layers = nn.Sequential(*modules, _conv(widths[-1], 1, stride=1))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """images [B, C, H, W] in [-1, 1] -> logits [B, 1, h, w]."""
        return self.layers(images)


def _conv(channels: int, out: int, *, stride: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, out, _KERNEL, stride=stride, padding=1, bias=bias)


def _activation() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


def _norm(kind: DiscriminatorNorm, channels: int) -> nn.Module:
    return GlobalBatchNorm2d(channels) if kind == "batch" else ActNorm2d(channels)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, _STD)
    elif isinstance(module, GlobalBatchNorm2d):
        nn.init.normal_(module.weight, 1.0, _STD)
        nn.init.zeros_(module.bias)
