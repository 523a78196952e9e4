"""Data of one Gaussian, whose denoiser and probability flow are known at every level."""

from __future__ import annotations

import torch
from torch import Tensor

from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.levels.distributions import LogNormalDistribution
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.types import Denoised, NoiseLevel, StepContext
from diffusion.mixtures import Still

MEAN, STD = 0.3, 0.5
EDM = ContinuousProcess(LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=(0.002, 80.0))


def exact(x: Tensor, step: StepContext) -> Denoised:
    """E[x0 | x] at any level."""
    level = step.level
    total = (level.alpha * STD) ** 2 + level.sigma**2
    away = x - level.alpha * MEAN
    return Denoised(MEAN + level.alpha * STD**2 / total * away, level.sigma / total * away)


def flow(z: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
    """z = x / alpha at `there` on the probability flow through z at `here`."""
    return MEAN + (z - MEAN) * ((STD**2 + there.edm_sigma**2) / (STD**2 + here.edm_sigma**2)) ** 0.5


def error(sampler: LevelSampler) -> float:
    """How far a walk in continuous time ends from the flow, at most, in float64."""
    levels = sampler.levels(EDM)
    z = levels[0].edm_sigma * torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]
    ended = sampler(exact, sampler.respace(EDM), z * levels[0].alpha, Still()) / levels[-1].alpha
    return float((ended - flow(z, levels[0], levels[-1])).abs().max())
