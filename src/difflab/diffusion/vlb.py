"""Terms of the variational bound; DDPM eq. 5, in bits per dimension."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.tables import Time
from difflab.types import Denoised


def mean_flat(x: Tensor) -> Tensor:
    """Returns the mean over all dimensions but the batch: [B, ...] -> [B]."""
    return x.flatten(1).mean(dim=1)


def normal_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """Returns KL(N(mean1, var1) || N(mean2, var2)) elementwise, in nats; arguments broadcast."""
    return 0.5 * (
        -1.0
        + log_variance2
        - log_variance1
        + torch.exp(log_variance1 - log_variance2)
        + (mean1 - mean2) ** 2 * torch.exp(-log_variance2)
    )


def approx_standard_normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the normal CDF used for the official bits/dim (Page 1977)."""
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def discretised_gaussian_log_likelihood(x: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Returns log p of 8-bit pixels, x in [-1, 1] on the grid of 255 steps, elementwise in nats; DDPM eq. 13.

    The bin of a value extends 1/255 to either side; the outermost bins are open. Probabilities are floored at 1e-12.
    """
    centred = x - means
    inverse_std = torch.exp(-log_scales)
    cdf_above = approx_standard_normal_cdf(inverse_std * (centred + 1.0 / 255.0))
    cdf_below = approx_standard_normal_cdf(inverse_std * (centred - 1.0 / 255.0))
    log_above = torch.log(cdf_above.clamp(min=1e-12))
    log_one_minus_below = torch.log((1.0 - cdf_below).clamp(min=1e-12))
    log_inside = torch.log((cdf_above - cdf_below).clamp(min=1e-12))
    return torch.where(x < -0.999, log_above, torch.where(x > 0.999, log_one_minus_below, log_inside))


def vb_terms_bpd(process: GaussianProcess, denoised: Denoised, x0: Tensor, x_t: Tensor, t: Time) -> Tensor:
    """Returns one term of the bound per item [B], in bits per dimension; DDPM eq. 5.

    L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for t > 0, and L_0 = -log p(x_0 | x_1) at t = 0.
    """
    true_mean, _, true_log_variance = process.q_posterior_mean_variance(x0, x_t, t)
    mean, _, log_variance = process.reverse_mean_variance(denoised, x_t, t)
    kl = mean_flat(normal_kl(true_mean, true_log_variance, mean, log_variance)) / math.log(2.0)
    nll = -mean_flat(discretised_gaussian_log_likelihood(x0, mean, 0.5 * log_variance)) / math.log(2.0)
    at_start = t == 0
    if isinstance(at_start, bool):
        return nll if at_start else kl
    return torch.where(at_start.to(x0.device), nll, kl)


def prior_bpd(process: GaussianProcess, x0: Tensor) -> Tensor:
    """Returns L_T = KL(q(x_T | x_0) || N(0, I)) per item [B], in bits per dimension; DDPM eq. 5."""
    mean, _, log_variance = process.q_mean_variance(x0, process.num_timesteps - 1)
    zero = torch.zeros((), dtype=x0.dtype, device=x0.device)
    return mean_flat(normal_kl(mean, log_variance, zero, zero)) / math.log(2.0)
