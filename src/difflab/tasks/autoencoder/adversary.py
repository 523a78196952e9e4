"""The discriminator with what its training needs, and the autoencoder's loss against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from difflab.config.optimizer import OptimizerConfig
from difflab.networks.processes import sum_over_processes
from difflab.tasks.autoencoder.adversarial import DiscriminatorLoss, adaptive_weight, generator_loss
from difflab.tasks.autoencoder.likelihood import Errors, ReconstructionLoss
from difflab.tasks.gathering import world_size

LastLayer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Adversary:
    """The discriminator of a training.

    loss:      of the discriminator. weight: factor on the adaptive weight.
    start:     batches before it is trained, and the autoencoder against it.
    recompute: whether it is trained on reconstructions of the autoencoder that the same batch has updated.
    """

    discriminator: nn.Module
    loss: DiscriminatorLoss
    weight: float
    start: int
    recompute: bool
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class AgainstAdversary:
    """The autoencoder's loss of reconstructions against an adversary.

    gradient:       of nll + weight * g, means over the batch, at the reconstructions: [B, C, H, W], float32.
    of_log_variance: the gradient of the mean nll at the log-variance; None if that is not trained.
    errors:         of the reconstructions. g: the adversarial loss of each, [B]. weight: the adaptive weight, [].
    """

    gradient: Tensor
    of_log_variance: Tensor | None
    errors: Errors
    g: Tensor
    weight: Tensor


def against(
    adversary: Adversary, error: ReconstructionLoss, reconstructions: Tensor, images: Tensor, last_layer: LastLayer
) -> AgainstAdversary:
    """Weighs the adversarial loss against the error by their gradients at the decoder's last layer (VQGAN, eq. 7).

    The gradients of both losses are taken at the reconstructions, once, and passed on from there to the last layer;
    the autoencoder's own backward pass starts from their sum. Perceptual network and discriminator are passed backwards
    once. The weight is that of the gradients of all processes' reconstructions.

    last_layer: the gradient at the last layer of one at the reconstructions.
    """
    leaf = reconstructions.detach().to(torch.promote_types(reconstructions.dtype, torch.float32)).requires_grad_()
    errors = error(leaf, images)
    trained = [error.log_variance] if error.log_variance.requires_grad else []
    of_nll, *of_log_variance = torch.autograd.grad(errors.nll.mean(), [leaf, *trained])
    g = generator_loss(adversary.discriminator(leaf))
    (of_g,) = torch.autograd.grad(g.mean(), leaf)
    sums = sum_over_processes(last_layer(of_nll), last_layer(of_g))
    weight = adversary.weight * adaptive_weight(*(one / world_size() for one in sums))
    return AgainstAdversary(of_nll + weight * of_g, next(iter(of_log_variance), None), errors, g.detach(), weight)
