"""Bits per dimension: the full variational bound of DDPM eq. 5 for given images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.base import descending_steps
from difflab.diffusion.vlb import mean_flat, prior_bpd, vb_terms_bpd
from difflab.types import Denoiser


@dataclass(frozen=True)
class BitsPerDim:
    """The bound per item. Columns run from the last timestep down to 0, in the order of computation.

    total [B] = prior [B] + sum of vb [B, T], all in bits per dimension; x0_mse and eps_mse [B, T] are the errors of the
    two views of the prediction.
    """

    total: Tensor
    prior: Tensor
    vb: Tensor
    x0_mse: Tensor
    eps_mse: Tensor


@torch.no_grad()
def bits_per_dim(denoiser: Denoiser, process: GaussianProcess, x0: Tensor, noise: NoiseSource) -> BitsPerDim:
    """Returns an upper bound on -log2 p(x0) / D, with one noise sample per timestep; DDPM eq. 5.

    x0 [B, ...]: images in [-1, 1] on the grid of 8-bit pixels. The official codes clip predictions of x0 here, as does
    the denoiser's threshold. Calls the network once per row of `process`, so it is slow.
    """
    vb, x0_mse, eps_mse = [], [], []
    for step in descending_steps(process):
        row = step.table_index
        assert row is not None, "descending_steps visits rows only"
        z = noise.randn_like(x0)
        x_t = process.q_sample(x0, row, z)
        denoised = denoiser(x_t, step)
        vb.append(vb_terms_bpd(process, denoised, x0, x_t, row))
        x0_mse.append(mean_flat((denoised.x0 - x0) ** 2))
        eps_mse.append(mean_flat((denoised.eps - z) ** 2))
    terms = torch.stack(vb, dim=1)
    prior = prior_bpd(process, x0)
    return BitsPerDim(terms.sum(dim=1) + prior, prior, terms, torch.stack(x0_mse, dim=1), torch.stack(eps_mse, dim=1))
