"""The VQ regulariser: each place of a latent is the nearest vector of a learned codebook (van den Oord et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from difflab.networks.autoencoder.latents import Deterministic, Posterior
from difflab.networks.autoencoder.regularizer import Regularized, Regularizer

if TYPE_CHECKING:
    from difflab.networks.autoencoder.config import VQConfig

_MOST_DISTANCES = 2**24
"""Distances that are computed at a time: 64 MB in float32."""


class VectorQuantizer(Regularizer):
    """A codebook of `codes` vectors of `channels` numbers, uniform within +-1/codes at the start.

    State-dict keys: embedding.weight [codes, channels].
    """

    def __init__(
        self, codes: int, channels: int, beta: float = 0.25, beta_on: Literal["codebook", "commitment"] = "codebook"
    ) -> None:
        super().__init__()
        self.codes, self.beta, self.beta_on = codes, beta, beta_on
        self.embedding = nn.Embedding(codes, channels)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

    @property
    def codebook(self) -> Tensor:
        return self.embedding.weight

    def posterior(self, moments: Tensor) -> Deterministic:
        """The latent before quantisation [B, C, h, w], which latent diffusion diffuses (`VQModelInterface`)."""
        return Deterministic(moments)

    def forward(self, posterior: Posterior, noise: Tensor | None) -> Regularized:
        """The nearest codes, with the gradient of the latent (straight-through), and the codebook loss."""
        latent = posterior.mode()
        codes = self.nearest(latent)
        quantized = self.vectors(codes)
        loss = self._loss(latent, quantized)
        return Regularized(latent + (quantized - latent).detach(), loss, codes)

    def decodable(self, latent: Tensor) -> Tensor:
        """A latent [B, C, h, w] -> the nearest vectors of the codebook, without a gradient to the latent."""
        return self.vectors(self.nearest(latent))

    def nearest(self, latent: Tensor) -> Tensor:
        """A latent [B, C, h, w] -> int64 [B, h, w]: the number of the code with the smallest Euclidean distance.

        In float32 or wider, even under autocast: half precision would mistake close codes for each other.
        """
        batch, channels, height, width = latent.shape
        places = latent.detach().permute(0, 2, 3, 1).reshape(-1, channels)
        with torch.autocast(latent.device.type, enabled=False):
            wide = torch.promote_types(latent.dtype, torch.float32)
            codebook = self.embedding.weight.detach().to(wide)
            squares = codebook.square().sum(dim=1)
            # |z - e|^2 without |z|^2, which is the same for all codes.
            found = [
                torch.addmm(squares, part, codebook.T, alpha=-2).argmin(dim=1)
                for part in places.to(wide).split(max(1, _MOST_DISTANCES // self.codes))
            ]
        return torch.cat(found).view(batch, height, width)

    def vectors(self, codes: Tensor) -> Tensor:
        """Numbers of codes int64 [B, h, w] -> their vectors [B, C, h, w]."""
        return self.embedding(codes).movedim(-1, 1)

    def _loss(self, latent: Tensor, quantized: Tensor) -> Tensor:
        """|sg[z_q] - z|^2 + |z_q - sg[z]|^2, means over an image, one times beta (van den Oord et al. 2017, eq. 3)."""
        commitment = _mean_squares(latent - quantized.detach())
        codebook = _mean_squares(quantized - latent.detach())
        if self.beta_on == "codebook":
            return commitment + self.beta * codebook
        return self.beta * commitment + codebook


def _mean_squares(x: Tensor) -> Tensor:
    return x.square().flatten(1).mean(dim=1)


class Usage(NamedTuple):
    """How the codes of a codebook are used.

    perplexity: [], the exponential of the entropy of their frequencies: the number of codes used equally often.
    used:       int64 [], the number of codes that occur at all.
    """

    perplexity: Tensor
    used: Tensor


def usage(codes: Tensor, size: int) -> Usage:
    """Codes int64 [...] of a codebook of `size` -> their usage."""
    return usage_of_counts(torch.bincount(codes.flatten(), minlength=size))


def usage_of_counts(counts: Tensor) -> Usage:
    """Counts [size], how often each code occurs, -> their usage."""
    frequencies = counts.double() / counts.sum()
    return Usage((-torch.special.xlogy(frequencies, frequencies).sum()).exp(), (counts > 0).sum())


def build(config: VQConfig, *, channels: int) -> VectorQuantizer:
    """Builds the regulariser of a configuration."""
    return VectorQuantizer(config.codes, channels, config.beta, config.beta_on)
