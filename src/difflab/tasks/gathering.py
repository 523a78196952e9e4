"""Embeddings of all processes, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them."""
    return dist.get_rank() if dist.is_initialized() else 0


def gathered(x: Tensor) -> Tensor:
    """x [B, ...] of every process -> [processes * B, ...], in the order of their ranks.

    The backward pass sums the gradients of all processes. If each of them minimizes the loss of the whole batch, or the
    mean over its own rows of it, then averaging the gradients of parameters over the processes, as
    DistributedDataParallel does, gives the gradient of one process with the whole batch.
    """
    return x if world_size() == 1 else _Gather.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad.chunk(world_size())[rank()]
