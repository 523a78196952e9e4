"""Interpolating between two images in the space of x_t; DDPM section 4.3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.base import Sampler

Mix = Literal["lerp", "slerp"]


def lerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """(1 - weight) a + weight b, as DDPM mixes its latents."""
    return (1 - weight) * a + weight * b


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Spherical interpolation of each item [B, ...] (DDIM appendix); falls back to lerp for parallel items."""
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(flat_a, flat_b, dim=1).clamp(-1.0, 1.0)
    angle = torch.acos(cosine).reshape(-1, *(1,) * (a.ndim - 1))
    sine = torch.sin(angle)
    parallel = sine.abs() < 1e-4
    safe = torch.where(parallel, torch.ones_like(sine), sine)
    curved = (torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b) / safe
    return torch.where(parallel, lerp(a, b, weight), curved)


def truncate(process: GaussianProcess, timestep: int) -> GaussianProcess:
    """The rows of a process up to training step `timestep`: sampling on it starts from x at that step.

    Raises ValueError where the process keeps no such row.
    """
    rows = [row for row, kept in enumerate(process.timestep_map) if kept <= timestep]
    if not rows:
        raise ValueError(f"no kept step at or below timestep {timestep}; the first is {process.timestep_map[0]}")
    return process.respace(rows)


def interpolate(
    denoiser: NetworkDenoiser,
    sampler: Sampler,
    process: GaussianProcess,
    a: Tensor,
    b: Tensor,
    weights: Sequence[float],
    *,
    timestep: int,
    noise: Callable[[], NoiseSource],
    mix: Mix = "lerp",
) -> Tensor:
    """Images between a and b [B, ...] in [-1, 1] -> [len(weights), B, ...]; weight 0 is a, 1 is b, both as decoded.

    Both are encoded with q(x_t | x_0) at training step `timestep` with the same noise, mixed, and decoded by `sampler`.
    `process` is the training process. `noise()` gives a source at its beginning each time it is called, so every weight
    sees the same noise and only the weight changes.
    """
    spaced = truncate(sampler.respace(process), timestep)
    row = spaced.num_timesteps - 1
    z = noise().randn_like(a)
    x_a, x_b = spaced.q_sample(a, row, z), spaced.q_sample(b, row, z)
    between = lerp if mix == "lerp" else slerp
    decoder = denoiser.on(spaced)
    images = []
    for weight in weights:
        source = noise()
        source.randn_like(a)
        images.append(sampler(decoder, spaced, between(x_a, x_b, weight), source))
    return torch.stack(images)
