"""Samplers: one call for all of them, (denoiser, process, start noise, noise source, hook) -> sample."""

from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.base import Sampler, StridedSampler
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.dpm_solver_pp import DPMSolverPPSampler
from difflab.diffusion.samplers.euler import Churn, EulerSampler, HeunSampler
from difflab.diffusion.samplers.inversion import DDIMInversion
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.diffusion.samplers.plms import PLMSSampler
from difflab.diffusion.samplers.trajectory import Trajectory
from difflab.diffusion.samplers.unipc import UniPCSampler

__all__ = [
    "AncestralSampler",
    "Churn",
    "DDIMInversion",
    "DDIMSampler",
    "DPMSolverPPSampler",
    "EulerSampler",
    "HeunSampler",
    "LevelSampler",
    "PLMSSampler",
    "Sampler",
    "StridedSampler",
    "Trajectory",
    "UniPCSampler",
]
