"""What every regulariser of a latent does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from difflab.networks.autoencoder.latents import Posterior


@dataclass(frozen=True)
class Regularized:
    """A latent on its way to the decoder.

    latent: [B, C, h, w], differentiable.
    loss:   [B], the regularisation of each image, without its weight in the loss.
    codes:  int64 [B, h, w], the numbers of the codes; None without a codebook.
    """

    latent: Tensor
    loss: Tensor
    codes: Tensor | None = None


class Regularizer(nn.Module, ABC):
    """Keeps latents small."""

    @property
    def codebook(self) -> Tensor | None:
        """The weight [codes, C] of its codebook; None without one."""
        return None

    @abstractmethod
    def posterior(self, moments: Tensor) -> Posterior:
        """Moments [B, M, h, w] -> the distribution of the latent."""

    @abstractmethod
    def forward(self, posterior: Posterior, noise: Tensor | None) -> Regularized:
        """The latent that the decoder is trained on. noise: standard normal [B, C, h, w]; None takes the mode."""

    def decodable(self, latent: Tensor) -> Tensor:
        """A latent [B, C, h, w] as the decoder knows it."""
        return latent
