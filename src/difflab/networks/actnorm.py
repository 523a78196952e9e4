"""Activation normalization: a scale and a shift per channel, which the first batch chooses (Glow, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from difflab.networks.processes import sum_over_processes

_EPS = 1e-6


class ActNorm2d(nn.Module):
    """y = scale * (x + loc), per channel; both are trained.

    The first batch in training mode, of all processes together, sets them such that its outputs have mean 0 and
    (unbiased) variance 1 per channel. Until then they are 0 and 1. Kingma & Dhariwal 2018; as in taming-transformers.
    """

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> the same shape."""
        if self.training and not self.initialized:
            self._initialise(x)
        return self.scale * (x + self.loc)

    @torch.no_grad()
    def _initialise(self, x: Tensor) -> None:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count, total = sum_over_processes(wide.new_tensor(x.numel() / x.shape[1]), wide.sum(dim=(0, 2, 3)))
        mean = total / count
        (squares,) = sum_over_processes((wide - mean[:, None, None]).square().sum(dim=(0, 2, 3)))
        std = (squares / (count - 1)).sqrt()
        self.loc.copy_(-mean[None, :, None, None])
        self.scale.copy_(1 / (std + _EPS)[None, :, None, None])
        self.initialized.fill_(1)
