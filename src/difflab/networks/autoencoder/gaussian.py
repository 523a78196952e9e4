"""The KL regulariser: latents are close to standard normal (Kingma and Welling 2013; latent diffusion, section 3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from difflab.networks.autoencoder.latents import DiagonalGaussian, Posterior
from difflab.networks.autoencoder.regularizer import Regularized, Regularizer

if TYPE_CHECKING:
    from difflab.networks.autoencoder.config import KLConfig


class KLRegularizer(Regularizer):
    """Samples the latent; its loss is the divergence from the standard normal, summed over the latent. It has no
    weights."""

    def posterior(self, moments: Tensor) -> DiagonalGaussian:
        """Means and log-variances [B, 2C, h, w] -> the Gaussian."""
        return DiagonalGaussian(moments)

    def forward(self, posterior: Posterior, noise: Tensor | None) -> Regularized:
        """A sample of the posterior, or its mean without noise."""
        latent = posterior.mode() if noise is None else posterior.sample(noise)
        return Regularized(latent, posterior.kl())


def build(config: KLConfig, *, channels: int) -> KLRegularizer:
    """Builds the regulariser of a configuration."""
    return KLRegularizer()
