"""What an encoder says of a latent: a diagonal Gaussian, or the latent itself."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

LOG_VARIANCE_MIN, LOG_VARIANCE_MAX = -30.0, 20.0
"""Log-variances are clamped to this range (`DiagonalGaussianDistribution`)."""


class Posterior(Protocol):
    """A distribution of latents [B, C, h, w], given the images.

    moments: [B, M, h, w], all that it is made of; `Autoencoder.posterior` makes it again.
    """

    @property
    def moments(self) -> Tensor: ...

    @property
    def mean(self) -> Tensor: ...

    @property
    def std(self) -> Tensor: ...

    def mode(self) -> Tensor:
        """The most probable latent."""
        ...

    def sample(self, noise: Tensor) -> Tensor:
        """The latent that standard normal `noise` [B, C, h, w] gives."""
        ...

    def kl(self) -> Tensor:
        """The divergence from the standard normal, summed over the latent: [B]."""
        ...


class DiagonalGaussian:
    """Independent normal distributions of every number of a latent [B, C, h, w].

    moments: [B, 2C, h, w]: means, then log-variances, which are clamped to [-30, 20]. In float32 or wider, whatever the
        moments are in: a variance of exp(20) is beyond half precision.
    """

    def __init__(self, moments: Tensor) -> None:
        self.moments = moments.to(torch.promote_types(moments.dtype, torch.float32))
        self.mean, log_variance = self.moments.chunk(2, dim=1)
        self.log_variance = log_variance.clamp(LOG_VARIANCE_MIN, LOG_VARIANCE_MAX)

    @property
    def std(self) -> Tensor:
        """[B, C, h, w]."""
        return torch.exp(0.5 * self.log_variance)

    @property
    def variance(self) -> Tensor:
        """[B, C, h, w]."""
        return self.log_variance.exp()

    def mode(self) -> Tensor:
        """The mean [B, C, h, w]."""
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise, for standard normal noise [B, C, h, w] (Kingma and Welling 2013, section 2.4)."""
        return self.mean + self.std * noise

    def kl(self, other: DiagonalGaussian | None = None) -> Tensor:
        """KL(self || other), summed over the latent: [B]. `other` is by default the standard normal."""
        if other is None:
            each = self.mean.square() + self.variance - 1 - self.log_variance
        else:
            each = (self.mean - other.mean).square() / other.variance + self.variance / other.variance - 1
            each = each - self.log_variance + other.log_variance
        return 0.5 * each.flatten(1).sum(dim=1)

    def nll(self, latent: Tensor) -> Tensor:
        """-log p(latent), summed over the latent: [B]."""
        each = math.log(2 * math.pi) + self.log_variance + (latent - self.mean).square() / self.variance
        return 0.5 * each.flatten(1).sum(dim=1)


class Deterministic:
    """One latent [B, C, h, w], which is its own moments, in float32 or wider."""

    def __init__(self, latent: Tensor) -> None:
        self.moments = self.mean = latent.to(torch.promote_types(latent.dtype, torch.float32))

    @property
    def std(self) -> Tensor:
        """Zeros [B, C, h, w]."""
        return torch.zeros_like(self.mean)

    def mode(self) -> Tensor:
        """The latent."""
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """The latent, whatever the noise."""
        return self.mean

    def kl(self) -> Tensor:
        """Zeros [B]: there is nothing to diverge."""
        return self.mean.new_zeros(len(self.mean))
