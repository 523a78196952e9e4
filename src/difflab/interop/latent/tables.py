"""The tables of a noise schedule in the checkpoints of CompVis' codes."""

from __future__ import annotations

import torch
from torch import Tensor

from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.diffusion.schedules import build_betas

TABLES = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
)  # fmt: skip


def tables_of(diffusion: DiscreteDiffusionConfig) -> dict[str, Tensor]:
    """The twelve tables of a process in a checkpoint, float32 (ddpm.py: register_schedule)."""
    betas = torch.as_tensor(build_betas(diffusion.schedule, diffusion.timesteps)).double()
    kept = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    variance = betas * (1 - before) / (1 - kept)
    values = (
        betas, kept, before, kept.sqrt(), (1 - kept).sqrt(), (1 - kept).log(), (1 / kept).sqrt(), (1 / kept - 1).sqrt(),
        variance, variance.clamp_min(1e-20).log(), betas * before.sqrt() / (1 - kept),
        (1 - before) * (1 - betas).sqrt() / (1 - kept),
    )  # fmt: skip
    return {key: value.float() for key, value in zip(TABLES, values, strict=True)}
