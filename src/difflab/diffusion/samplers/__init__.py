"""Samplers: one call for all of them, (denoiser, process, start noise, noise source, hook, part) -> sample."""

from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.base import Sampler, StridedSampler
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.dpm2 import DPM2AncestralSampler, DPM2Sampler
from difflab.diffusion.samplers.dpm_fast import DPMFastSampler
from difflab.diffusion.samplers.dpm_solver_pp import DPMSolverPPSampler
from difflab.diffusion.samplers.dpm_solver_pp_2s import DPMSolverPP2SAncestralSampler
from difflab.diffusion.samplers.dpm_solver_pp_multistep_sde import DPMSolverPP2MSDESampler, DPMSolverPP3MSDESampler
from difflab.diffusion.samplers.dpm_solver_pp_sde import DPMSolverPPSDESampler
from difflab.diffusion.samplers.edm_ablation import EDMAblationSampler
from difflab.diffusion.samplers.euler import Churn, EulerSampler, HeunSampler
from difflab.diffusion.samplers.euler_ancestral import EulerAncestralSampler
from difflab.diffusion.samplers.inversion import DDIMInversion
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.diffusion.samplers.lms import LMSSampler
from difflab.diffusion.samplers.part import Part
from difflab.diffusion.samplers.plms import PLMSSampler
from difflab.diffusion.samplers.resampling import Resampling
from difflab.diffusion.samplers.trajectory import Trajectory
from difflab.diffusion.samplers.unipc import UniPCSampler

__all__ = [
    "AncestralSampler",
    "Churn",
    "DDIMInversion",
    "DDIMSampler",
    "DPM2AncestralSampler",
    "DPM2Sampler",
    "DPMFastSampler",
    "DPMSolverPP2MSDESampler",
    "DPMSolverPP2SAncestralSampler",
    "DPMSolverPP3MSDESampler",
    "DPMSolverPPSDESampler",
    "DPMSolverPPSampler",
    "EDMAblationSampler",
    "EulerAncestralSampler",
    "EulerSampler",
    "HeunSampler",
    "LMSSampler",
    "LevelSampler",
    "PLMSSampler",
    "Part",
    "Resampling",
    "Sampler",
    "StridedSampler",
    "Trajectory",
    "UniPCSampler",
]
