"""The time embedding that every block receives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.config.axes import TIME_EMBEDDINGS


def sinusoidal_embedding(time: Tensor, channels: int, order: Literal["sin_cos", "cos_sin"], shift: int) -> Tensor:
    """float [B] -> float32 [B, channels]: sines and cosines of `time` at frequencies 1e4^(-i / (channels/2 - shift)).

    shift is 1 in DDPM ([sin, cos]) and 0 in ADM ([cos, sin]) and SR3 ([sin, cos]). `channels` must be even; with two
    channels there is one frequency, 1.
    """
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=time.device)
    angles = time.float()[:, None] * torch.exp(index * (-math.log(10_000.0) / max(half - shift, 1)))
    halves = (angles.sin(), angles.cos()) if order == "sin_cos" else (angles.cos(), angles.sin())
    return torch.cat(halves, dim=1)


def ddpm(time: Tensor, channels: int) -> Tensor:
    """[sin, cos], frequencies to 1e-4; DDPM."""
    return sinusoidal_embedding(time, channels, "sin_cos", 1)


def adm(time: Tensor, channels: int) -> Tensor:
    """[cos, sin], frequencies to almost 1e-4; improved-diffusion, ADM."""
    return sinusoidal_embedding(time, channels, "cos_sin", 0)


def sr3(time: Tensor, channels: int) -> Tensor:
    """[sin, cos], frequencies as in ADM; SR3."""
    return sinusoidal_embedding(time, channels, "sin_cos", 0)


@dataclass(frozen=True)
class EmbeddingSpec:
    """A time embedding: `sinusoid_channels` sines and cosines, a layer of `hidden_channels`, one of `channels`.

    kind:       the function that computes the sines and cosines of time (`TIME_EMBEDDINGS`).
    activation: SiLU at the end, before each block's own layer.
    """

    sinusoid_channels: int
    hidden_channels: int
    channels: int
    kind: str
    activation: bool = True


class TimeEmbedding(nn.Module):
    """Linear(SiLU(Linear(sinusoids of time))); DDPM appendix B."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed = TIME_EMBEDDINGS.builder(spec.kind)
        self.linear1 = nn.Linear(spec.sinusoid_channels, spec.hidden_channels)
        self.linear2 = nn.Linear(spec.hidden_channels, spec.channels)

    def forward(self, time: Tensor, vector: Tensor | None = None) -> Tensor:
        """time [B] (and optionally vector [B, channels], which is added) -> [B, channels], after the last SiLU if any.

        In the official codes every block begins with that SiLU; here it is computed once.
        """
        sinusoids = self.embed(time, self.spec.sinusoid_channels)
        emb = self.linear2(F.silu(self.linear1(sinusoids.to(self.linear1.weight.dtype))))
        emb = emb if vector is None else emb + vector
        return F.silu(emb) if self.spec.activation else emb


class PooledEmbedding(nn.Module):
    """Linear(SiLU(Linear(embedding))), added to the time embedding: the `adm` vector of Stability AI's models."""

    def __init__(self, pooled_channels: int, channels: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(pooled_channels, channels)
        self.linear2 = nn.Linear(channels, channels)

    def forward(self, pooled: Tensor) -> Tensor:
        """pooled [B, pooled_channels] -> [B, channels]."""
        return self.linear2(F.silu(self.linear1(pooled)))
