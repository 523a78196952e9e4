"""Gradients of several optimizers, averaged over the processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over all processes, in one all-reduce per device and dtype.

    For cases that DistributedDataParallel does not cover: it expects a gradient of every parameter from each backward.
    Here a missing gradient counts as 0; a parameter without a gradient on any process stays without. The host waits for
    the device only on a process that lacks one.
    """
    groups: dict[tuple[torch.device, torch.dtype], list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        groups[parameter.device, parameter.dtype].append(parameter)
    for group in groups.values():
        _average(group)


def _average(parameters: list[nn.Parameter]) -> None:
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    missing = [i for i, parameter in enumerate(parameters) if parameter.grad is None]
    has_one = gradients[0].new_ones(len(parameters))
    if missing:
        has_one[missing] = 0
    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), has_one])
    # Divided before the sum, as in DistributedDataParallel: a sum may overflow a small dtype.
    dist.all_reduce(flat.div_(dist.get_world_size()))
    *means, somewhere = flat.split([*(gradient.numel() for gradient in gradients), len(parameters)])
    torch._foreach_copy_(gradients, [mean.view(g.shape) for mean, g in zip(means, gradients, strict=True)])
    shares = somewhere.tolist() if missing else []
    for i in missing:
        if shares[i] > 0:
            parameters[i].grad = gradients[i]
