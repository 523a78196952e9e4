"""Discrete noise schedules: float64 betas, index 0 is the least noisy step."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from difflab.config.axes import SCHEDULES

if TYPE_CHECKING:
    from difflab.config.diffusion import ScheduleBase

Betas = NDArray[np.float64]


def build_betas(schedule: ScheduleBase, timesteps: int) -> Betas:
    """Returns the betas [T] of a schedule. Raises ValueError if it cannot have so few steps."""
    options = schedule.options
    shift, rescaled = options.pop("shift"), options.pop("zero_terminal_snr")
    betas = SCHEDULES.builder(schedule)(timesteps, **options)
    if shift != 1:
        betas = shifted(betas, shift)
    return zero_terminal_snr(betas) if rescaled else betas


def linear_betas(
    timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02, *, scale_with_steps: bool = False
) -> Betas:
    """Returns evenly spaced betas [T]; DDPM section 4 (latent diffusion calls this one `sqrt_linear`).

    scale_with_steps: multiply both ends by 1000 / T, so that any T ends at about the same noise level (ADM's `linear`).
    Raises ValueError if the scaling pushes beta_end to 1 or beyond, which happens at T <= 20.
    """
    scale = 1000.0 / timesteps if scale_with_steps else 1.0
    if scale * beta_end >= 1.0:
        raise ValueError(
            f"linear schedule with {timesteps} steps ends at beta={scale * beta_end:.3g}, which is not below 1: "
            "train with more steps and let the sampler take fewer, or set scale_with_steps=false"
        )
    return np.linspace(scale * beta_start, scale * beta_end, timesteps, dtype=np.float64)


def quad_betas(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Betas:
    """Returns betas [T] whose square roots are evenly spaced: `quad` of the DDPM code.

    The same numbers as diffusers' `scaled_linear` and latent diffusion's `linear`.
    """
    return np.linspace(beta_start**0.5, beta_end**0.5, timesteps, dtype=np.float64) ** 2


def const_betas(timesteps: int, beta: float = 0.02) -> Betas:
    """Returns the same beta at every step [T]."""
    return np.full(timesteps, beta, dtype=np.float64)


def jsd_betas(timesteps: int) -> Betas:
    """Returns 1/T, 1/(T-1), ..., 1: alpha_bar falls linearly to 0 (Sohl-Dickstein et al. 2015, section 2.4.1)."""
    return 1.0 / np.linspace(timesteps, 1, timesteps, dtype=np.float64)


def warmup_betas(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02, *, fraction: float = 0.1) -> Betas:
    """Linear over the first `fraction` of the steps, then beta_end [T]: `warmup10` and `warmup50` of the DDPM code."""
    betas = np.full(timesteps, beta_end, dtype=np.float64)
    rising = int(timesteps * fraction)
    betas[:rising] = np.linspace(beta_start, beta_end, rising, dtype=np.float64)
    return betas


def sqrt_betas(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Betas:
    """Returns square roots of evenly spaced numbers [T]: `sqrt` of the latent diffusion code."""
    return np.linspace(beta_start, beta_end, timesteps, dtype=np.float64) ** 0.5


def sigmoid_betas(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Betas:
    """Returns a sigmoid over [-6, 6] between the two ends [T] (GeoDiff; `sigmoid` of diffusers)."""
    ramp = 1.0 / (1.0 + np.exp(-np.linspace(-6.0, 6.0, timesteps, dtype=np.float64)))
    return ramp * (beta_end - beta_start) + beta_start


def cosine_betas(timesteps: int, s: float = 0.008, max_beta: float = 0.999) -> Betas:
    """alpha_bar(u) = cos^2((u + s) / (1 + s) * pi / 2), betas [T] capped at `max_beta`; Improved DDPM eq. 17."""
    return betas_for_alpha_bar(timesteps, lambda u: math.cos((u + s) / (1 + s) * math.pi / 2) ** 2, max_beta)


def laplace_betas(timesteps: int, max_beta: float = 0.999) -> Betas:
    """Returns betas [T] of a Laplace-distributed log-SNR (Hang and Gu 2024), as in diffusers."""

    def alpha_bar(u: float) -> float:
        log_snr = -0.5 * math.copysign(1.0, 0.5 - u) * math.log(1.0 - 2.0 * abs(0.5 - u) + 1e-6)
        snr = math.exp(log_snr)
        return math.sqrt(snr / (1.0 + snr))

    return betas_for_alpha_bar(timesteps, alpha_bar, max_beta)


def betas_for_alpha_bar(timesteps: int, alpha_bar: Callable[[float], float], max_beta: float) -> Betas:
    """Returns betas [T] for alpha_bar(u), u in [0, 1]: min(1 - alpha_bar((i+1)/T) / alpha_bar(i/T), max_beta)."""
    values = [alpha_bar(i / timesteps) for i in range(timesteps + 1)]
    return np.array([min(1 - after / before, max_beta) for before, after in pairwise(values)], dtype=np.float64)


def shifted(betas: Betas, shift: float) -> Betas:
    """Multiplies sigma / alpha of every step by `shift`: log-SNR - 2 ln(shift); Hoogeboom et al. 2023, section 3.1.

    The paper shifts a schedule made for 64 pixels by d / 64 at d pixels: averaging over more pixels removes more noise.
    """
    alphas_cumprod = np.cumprod(1.0 - betas)
    signal = alphas_cumprod / (alphas_cumprod + shift**2 * (1.0 - alphas_cumprod))
    return betas_of(signal)


def betas_of(alphas_cumprod: NDArray[np.float64]) -> Betas:
    """Returns the betas [T] whose cumulative product of 1 - beta is `alphas_cumprod` [T]."""
    return 1.0 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])


def zero_terminal_snr(betas: Betas) -> Betas:
    """Shifts and scales sqrt(alpha_bar) to end at exactly 0 and keep its start; Lin et al. 2024, Algorithm 1.

    Raises ValueError for fewer than two steps, which cannot satisfy both.
    """
    if len(betas) < 2:
        raise ValueError(f"zero terminal SNR needs 2 steps or more, a first and a last one; got {len(betas)}")
    root = np.sqrt(np.cumprod(1.0 - betas))
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    return betas_of(root**2)
