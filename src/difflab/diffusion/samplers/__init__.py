"""Samplers: one call for all of them, (denoiser, process, start noise, noise source, hook) -> sample."""

from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.base import Sampler, StridedSampler
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.euler import Churn, EulerSampler, HeunSampler
from difflab.diffusion.samplers.inversion import DDIMInversion
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.diffusion.samplers.trajectory import Trajectory

__all__ = [
    "AncestralSampler",
    "Churn",
    "DDIMInversion",
    "DDIMSampler",
    "EulerSampler",
    "HeunSampler",
    "LevelSampler",
    "Sampler",
    "StridedSampler",
    "Trajectory",
]
