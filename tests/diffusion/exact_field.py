"""A mixture of Gaussians with its exact denoiser, its fine solution, and samplers on a smooth grid above zero noise."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.levels.distributions import LogNormalDistribution
from difflab.diffusion.levels.grid import Grid
from difflab.types import Denoised, StepContext
from diffusion.mixtures import rk4

LOW, HIGH = 0.1, 10.0
PROCESS = ContinuousProcess(LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=(LOW, HIGH))

SHARES = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[-1.0, 0.4], [0.5, 0.9], [0.3, -1.2]], dtype=torch.float64)
SPREADS = torch.tensor([0.5, 0.4, 0.6], dtype=torch.float64)


def exact_x0(z: Tensor, noise: float) -> Tensor:
    """E[x0 | x0 + noise n = z] of z [B, 2], float64."""
    v = SPREADS**2 + noise**2
    away = z[:, None] - MEANS
    log_r = SHARES.log() - away.square().sum(dim=2) / (2 * v) - torch.log(v)
    means = MEANS + (SPREADS**2 / v)[:, None] * away
    return (torch.softmax(log_r, dim=1)[:, :, None] * means).sum(dim=1)


def denoiser(x: Tensor, step: StepContext) -> Denoised:
    """The exact answer at any level."""
    level = step.level
    x0 = exact_x0(x / level.alpha, level.edm_sigma)
    return Denoised(x0, (x - level.alpha * x0) / level.sigma)


def start(n: int, seed: int = 0) -> Tensor:
    """z [n, 2] at the highest noise, drawn from the exact marginal."""
    generator = torch.Generator().manual_seed(seed)
    return data(n, generator) + HIGH * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def data(n: int, generator: torch.Generator) -> Tensor:
    """Samples [n, 2] of the mixture."""
    which = torch.multinomial(SHARES, n, replacement=True, generator=generator)
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return MEANS[which] + SPREADS[which, None] * noise


def solution(z: Tensor) -> Tensor:
    """z at the lowest noise by the probability-flow ODE, to about 1e-10."""

    def field(z: Tensor, log_noise: float) -> Tensor:
        return z - exact_x0(z, math.exp(log_noise))

    return rk4(field, z, math.log(HIGH), math.log(LOW), 1500)


def grid(steps: int, **options: Any) -> Grid:
    """`steps` steps, even in the log-SNR, from the highest noise to the lowest and no further."""
    return Grid(steps=steps + 1, spacing="exponential", sigma_min=LOW, sigma_max=HIGH, final="lowest", **options)


def run(sampler: Any, z: Tensor, noise: Any) -> Tensor:
    """z at the highest noise -> z at the lowest."""
    levels = sampler.grid.levels(PROCESS)
    return sampler(denoiser, PROCESS, z * levels[0].alpha, noise) / levels[-1].alpha


def order(make: Any, coarse: int, z: Tensor, exact: Tensor, noise: Any) -> float:
    """log2 of how much the error shrinks where the steps double."""
    errors = [float((run(make(grid(steps)), z, noise) - exact).abs().max()) for steps in (coarse, 2 * coarse)]
    return math.log2(errors[0] / errors[1])
