"""The adversarial part of the loss: of the discriminator, of the autoencoder, and the weight of the latter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

DiscriminatorLossName = Literal["hinge", "vanilla"]

DiscriminatorLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits of images, logits of reconstructions), both [B, 1, h, w] -> the loss of each pair, [B]."""

MAX_WEIGHT = 1e4
_EPS = 1e-4


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """(relu(1 - real) + relu(1 + fake)) / 2, means over the patches (Lim & Ye 2017; `hinge_d_loss`)."""
    return 0.5 * (_per_image(F.relu(1.0 - real)) + _per_image(F.relu(1.0 + fake)))


def vanilla(real: Tensor, fake: Tensor) -> Tensor:
    """(softplus(-real) + softplus(fake)) / 2, means over the patches (Goodfellow et al. 2014; `vanilla_d_loss`)."""
    return 0.5 * (_per_image(F.softplus(-real)) + _per_image(F.softplus(fake)))


DISCRIMINATOR_LOSSES: dict[DiscriminatorLossName, DiscriminatorLoss] = {"hinge": hinge, "vanilla": vanilla}


def generator_loss(fake: Tensor) -> Tensor:
    """The loss of the autoencoder, -fake: [B], means over the patches; logits [B, 1, h, w]."""
    return -_per_image(fake)


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """The weight of the adversarial loss, |reconstruction| / (|adversarial| + 1e-4), at most 1e4 (VQGAN, eq. 7).

    Both are gradients at the decoder's last layer, of the other losses and of the adversarial one. -> [], always finite
    if they are.
    """
    ratio = reconstruction.detach().norm() / (adversarial.detach().norm() + _EPS)
    return ratio.clamp(0.0, MAX_WEIGHT)


def _per_image(x: Tensor) -> Tensor:
    return x.flatten(1).mean(dim=1)
