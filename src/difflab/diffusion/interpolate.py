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
from difflab.diffusion.samplers.encode import noised
from difflab.diffusion.samplers.part import Part
from difflab.types import NoiseLevel

Mix = Literal["lerp", "slerp"]

STRAIGHT = 1e-4  # sine of the angle below which an arc is treated as a straight line


def lerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Returns (1 - weight) a + weight b, as DDPM mixes its latents."""
    return (1 - weight) * a + weight * b


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Interpolates each item of [B, ...] spherically; DDIM, appendix.

    Falls back to `lerp` if no arc is defined: items that are parallel or opposite, or one of them zero.
    """
    angle = _angle(a.flatten(1).double(), b.flatten(1).double()).reshape(-1, *(1,) * (a.ndim - 1))
    sine = torch.sin(angle)
    straight = ~(sine > STRAIGHT)
    safe = torch.where(straight, 1.0, sine)
    of_a, of_b = (torch.sin(share * angle) / safe for share in (1 - weight, weight))
    return torch.where(straight, lerp(a, b, weight), of_a.to(a) * a + of_b.to(b) * b)


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """Returns the angles between the rows of a and b [B, D], in [0, pi], exact near both ends; 0 if a row is zero."""
    a, b = (row / row.norm(dim=1, keepdim=True).clamp(min=torch.finfo(row.dtype).tiny) for row in (a, b))
    angle = 2.0 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))
    return torch.where((a == 0).all(dim=1) | (b == 0).all(dim=1), 0.0, angle)


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
    """Returns images between a and b [B, ...] in [-1, 1] -> [len(weights), B, ...]; weight 0 decodes a, weight 1 b.

    Both are encoded with q(x_t | x_0) and the same noise, at the sampler's first level at or below training step
    `timestep`, mixed, and decoded by `sampler`. `process` is the training process. `noise()` returns a noise source
    in its initial state each time it is called, so all weights share the same noise.

    Raises ValueError if the sampler has no step at or below `timestep`.
    """
    spaced = sampler.respace(process)
    level = _level_below(sampler.levels(spaced), timestep)
    z = noise().randn_like(a)
    x_a, x_b = noised(a, level, z), noised(b, level, z)
    between = lerp if mix == "lerp" else slerp
    decoder = denoiser.on(spaced)
    images = []
    for weight in weights:
        source = noise()
        source.randn_like(a)
        images.append(sampler(decoder, spaced, between(x_a, x_b, weight), source, None, Part(start=level)))
    return torch.stack(images)


def _level_below(levels: Sequence[NoiseLevel], timestep: int) -> NoiseLevel:
    timed = [(level.timestep, level) for level in levels[:-1] if level.timestep is not None]
    below = [level for own, level in timed if own <= timestep]
    if not below:
        first = f"; the first is {timed[-1][0]:g}" if timed else ": its levels have none"
        raise ValueError(f"no step of the sampler at or below timestep {timestep}{first}")
    return below[0]
