"""The training loop that one would write by hand, for any network of the signature network(x, time, classes)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.config.diffusion import DiffusionConfig
from difflab.config.optimizer import OptimizerConfig
from difflab.diffusion.build import build_loss, build_process
from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.diffusion.schedules import build_betas
from difflab.errors import UserError


class BareLoop:
    """Algorithm 1 of Ho et al. (2020): noise, loss, backward, clip, step, average. Nothing is logged, saved or checked.

    images: uint8 [B, C, H, W] batches that lie on the network's device already; the loop goes round and round.
    labels: int64 [B] of each of them, for a network that is told of classes.
    accumulate: each batch is worked through in this many parts.
    autocast: the type of the network's arithmetic, None for float32.

    A learned variance has the hybrid loss of Improved DDPM, for which even this loop borrows difflab's; all else is its
    own. Raises UserError for a diffusion that would make the loop more than this (weights, other losses).
    """

    def __init__(
        self,
        network: nn.Module,
        images: Sequence[Tensor],
        diffusion: DiffusionConfig,
        optimizer: OptimizerConfig,
        *,
        gradient_clip: float,
        ema_decay: float,
        accumulate: int = 1,
        autocast: torch.dtype | None = None,
        labels: Sequence[Tensor] | None = None,
    ) -> None:
        diffusion = _plain(diffusion)
        self.network = network.train()
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.averages = [p.detach().clone() for p in self.parameters]
        self.device = self.parameters[0].device
        self.batches = itertools.cycle(zip(images, labels or [None] * len(images), strict=True))
        self.predicts_v = diffusion.prediction == "v"
        betas = torch.as_tensor(build_betas(diffusion.schedule, diffusion.timesteps), dtype=torch.float64)
        alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
        learned = diffusion.learns_variance
        self.hybrid_loss = build_loss(diffusion, build_process(diffusion)) if learned else None
        self.alpha = alphas_cumprod.sqrt().float().to(self.device)
        self.sigma = (1.0 - alphas_cumprod).sqrt().float().to(self.device)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer.kind]
        self.optimizer = kind(
            self.parameters,
            lr=optimizer.lr,
            betas=(optimizer.betas[0], optimizer.betas[1]),
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            fused=True,
        )
        self.gradient_clip, self.ema_decay, self.autocast = gradient_clip, ema_decay, autocast
        self.accumulate = accumulate

    def step(self) -> None:
        """One optimised batch."""
        self.optimizer.zero_grad(set_to_none=True)
        images, labels = next(self.batches)
        told = [None] * self.accumulate if labels is None else labels.chunk(self.accumulate)
        for part, classes in zip(images.chunk(self.accumulate), told, strict=True):
            x0 = part.float().div_(127.5).sub_(1.0)
            t = torch.randint(len(self.alpha), (len(x0),), device=self.device)
            (self.loss(x0, t, torch.randn_like(x0), classes) / self.accumulate).backward()
        if self.gradient_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.gradient_clip)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.parameters, 1.0 - self.ema_decay)

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, classes: Tensor | None = None) -> Tensor:
        """The mean squared error of the prediction; x0 and noise [B, C, H, W], t and classes int64 [B]."""
        alpha, sigma = self.alpha[t][:, None, None, None], self.sigma[t][:, None, None, None]
        x_t = alpha * x0 + sigma * noise
        target = alpha * noise - sigma * x0 if self.predicts_v else noise
        told = () if classes is None else (classes,)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            output = self.network(x_t, t.float(), *told)
        if self.hybrid_loss is not None:
            return self.hybrid_loss(output.float(), x0, x_t, t, noise)["loss"].mean()
        return F.mse_loss(output.float(), target)


def _plain(diffusion: DiffusionConfig) -> DiscreteDiffusionConfig:
    if not isinstance(diffusion, DiscreteDiffusionConfig):
        raise UserError("the bare loop knows only diffusion.kind=discrete; benchmark another experiment")
    hybrid = diffusion.learns_variance and diffusion.loss.startswith("hybrid")
    if diffusion.weighting.weighs:
        raise UserError("the bare loop knows only diffusion.weighting=none; benchmark another experiment")
    plain = {"time_input": "index"} | ({} if hybrid else {"loss": "mse"})
    for key, value in plain.items():
        if getattr(diffusion, key) != value:
            raise UserError(f"the bare loop knows only diffusion.{key}={value}; benchmark another experiment")
    if diffusion.prediction not in ("eps", "v") or diffusion.timestep_sampling.kind != "uniform":
        raise UserError("the bare loop predicts eps or v at uniform timesteps; benchmark another experiment")
    return diffusion
