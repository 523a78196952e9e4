"""A training step on latents and states of captions that are computed already, with either library's network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.latent_peer import LatentUNet
from difflab.diffusion.config import ScaledLinearSchedule
from difflab.diffusion.schedules import build_betas

TIMESTEPS = 1000
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.01
"""Stable Diffusion's (model card; torch's AdamW)."""

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Batches of scaled latents [B, C, h, w] and of states [B, L, D]."""


class TrainingStep:
    """Noise, forward, mean squared error of eps, backward, AdamW; nothing is logged, averaged or checked.

    network: takes x, time and tokens, as `latent_peer` has them, and lies on the device of the batches.
    autocast: the type of the network's arithmetic, None for float32.
    """

    def __init__(self, network: nn.Module, batches: Pairs, autocast: torch.dtype | None) -> None:
        self.network, self.autocast = network.train(), autocast
        self.batches = itertools.cycle(batches)
        self.device = batches[0][0].device
        betas = torch.as_tensor(build_betas(ScaledLinearSchedule(kind="scaled_linear"), TIMESTEPS), dtype=torch.float64)
        kept = torch.cumprod(1.0 - betas, dim=0)
        self.alpha, self.sigma = (root.sqrt().float().to(self.device) for root in (kept, 1.0 - kept))
        parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)

    def __call__(self) -> None:
        """One optimised batch."""
        self.optimizer.zero_grad(set_to_none=True)
        x0, tokens = next(self.batches)
        t = torch.randint(TIMESTEPS, (len(x0),), device=self.device)
        self.loss(x0, t, torch.randn_like(x0), tokens).backward()
        self.optimizer.step()

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, tokens: Tensor) -> Tensor:
        """x0 and noise [B, C, h, w], t int64 [B], tokens [B, L, D]."""
        alpha, sigma = self.alpha[t][:, None, None, None], self.sigma[t][:, None, None, None]
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            output = self.network(alpha * x0 + sigma * noise, t.float(), tokens)
        return F.mse_loss(output.float(), noise)


def batches_of(about: LatentUNet, size: int, device: torch.device, count: int = 4) -> Pairs:
    """Batches of random numbers on the device."""
    generator = torch.Generator().manual_seed(0)
    return [(about.latents(size, generator).to(device), about.states(size, generator).to(device)) for _ in range(count)]
