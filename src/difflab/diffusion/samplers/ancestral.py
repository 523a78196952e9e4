"""Ancestral sampling; DDPM Algorithm 2."""

from __future__ import annotations

import torch
from torch import Tensor

from difflab.diffusion.guidance.base import shift_mean
from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.base import StridedSampler, row_of
from difflab.types import Denoised, Denoiser, StepContext


class AncestralSampler(StridedSampler):
    """x_{t-1} = mean + exp(log_variance / 2) z, with z = 0 at the last step; DDPM Algorithm 2.

    Noise is sampled once in every step but the last.
    """

    def step(
        self,
        denoiser: Denoiser,
        process: GaussianProcess,
        x: Tensor,
        context: StepContext,
        noise: NoiseSource,
    ) -> tuple[Tensor, Denoised]:
        """Samples from p(x_{t-1} | x_t); DDPM eq. 11 generalised to every prediction and variance."""
        row = row_of(context)
        denoised = denoiser(x, context)
        mean, variance, log_variance = process.reverse_mean_variance(denoised, x, row)
        mean = shift_mean(denoiser, mean, variance, x, context)
        if row == 0:
            return mean, denoised
        return mean + torch.exp(0.5 * log_variance) * noise.randn_like(x), denoised
