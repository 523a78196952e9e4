"""Distances of images in the features of a network: of their content, and of their style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.config.parts import FrozenConfig
from difflab.networks.frozen import Frozen
from difflab.networks.perceptual.features import FeatureNetwork

_EPS = 1e-10
_DROPOUT = 0.5


class PerceptualDistance(nn.Module):
    """The distance of two images in the features of a network (Zhang et al. 2018, eq. 1).

    At every depth, features are divided by their norm at each place; the squares of their differences are weighted by
    channel, summed over channels, averaged over places, and summed over depths. Without channel weights it is
    the cosine distance, 1 - cos, averaged over places and depths.

    network:         the features. channel_weights: the file of learned weights.
    style:           factor on the style reconstruction (`style_distance`), which is added.
    dropout:         whether channels are dropped at random in training mode (see `LPIPSConfig`).
    Its networks are `Frozen`: `difflab.parts.loading.load_frozen` has to be called first.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        channel_weights: FrozenConfig | None = None,
        *,
        style: float = 0.0,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.style, self.dropout = network, style, dropout
        self.channel_weights = None
        if channel_weights is not None:
            self.channel_weights = Frozen(channel_weights, ChannelWeights, network.channels)

    def forward(self, images: Tensor, originals: Tensor) -> Tensor:
        """Both [B, C, H, W] in [-1, 1], with C = 3, or 1, which counts as three equal channels. -> float32 [B]

        Gradients pass to `images` alone.
        """
        ours = self.network(images.expand(-1, 3, -1, -1))
        with torch.no_grad():
            theirs = self.network(originals.expand(-1, 3, -1, -1))
        found = self._content(ours, theirs)
        if self.style:
            found = found + self.style * sum(map(style_distance, ours, theirs))
        return found

    def _content(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
        weights = self._weights()
        found = []
        for depth, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            squares = (_unit(a.float()) - _unit(b.float())).square()
            if self.dropout:
                squares = F.dropout(squares, _DROPOUT, training=self.training)
            # Half of it is 1 - cos.
            each = squares * (0.5 / len(ours) if weights is None else weights[depth].view(-1, 1, 1))
            found.append(each.sum(dim=1).mean(dim=(1, 2)))
        return torch.stack(found).sum(dim=0)

    def _weights(self) -> list[Tensor] | None:
        return None if self.channel_weights is None else cast("list[Tensor]", self.channel_weights())


class ChannelWeights(nn.Module):
    """The learned weight of each channel at each depth, with LPIPS' keys: `lin<depth>.model.1.weight` [1, C, 1, 1]."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.depths = len(channels)
        for depth, count in enumerate(channels):
            layer = nn.Conv2d(count, 1, 1, bias=False)
            self.add_module(f"lin{depth}", nn.ModuleDict({"model": nn.Sequential(nn.Identity(), layer)}))

    def forward(self) -> list[Tensor]:
        """Returns the weights [C] at each depth."""
        return [self.get_parameter(f"lin{depth}.model.1.weight").flatten() for depth in range(self.depths)]


def style_distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """The squared Frobenius distance of the Gram matrices of features [B, C, h, w] -> [B] (Johnson et al. 2016, eq. 4).

    Images may differ in size, since a Gram matrix [C, C] is a mean over places.
    """
    return (gram_matrix(ours.float()) - gram_matrix(theirs.float())).square().sum(dim=(1, 2))


def gram_matrix(features: Tensor) -> Tensor:
    """F F^T / (C h w) of features [B, C, h, w], F being [C, h w], -> [B, C, C] (Johnson et al. 2016, eq. 3)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + _EPS)
