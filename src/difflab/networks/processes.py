"""Sums over all processes of a training, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def in_several_processes() -> bool:
    """Whether more than one process trains together."""
    return dist.is_initialized() and dist.get_world_size() > 1


def sum_over_processes(*values: Tensor) -> list[Tensor]:
    """Returns the sums of tensors over all processes, found in one exchange; gradients are summed likewise.

    All values have one dtype. One process returns them unchanged.
    """
    if not in_several_processes():
        return list(values)
    flat = _AllReduceSum.apply(torch.cat([value.reshape(-1) for value in values]))
    assert isinstance(flat, Tensor)
    sums = flat.split([value.numel() for value in values])
    return [total.view(value.shape) for total, value in zip(sums, values, strict=True)]


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad
