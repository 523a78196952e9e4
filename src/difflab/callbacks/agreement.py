"""What all processes must decide alike."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor


def all_reduce_max(trainer: pl.Trainer, value: Tensor) -> Tensor:
    """The largest `value` of any process, on every process; queued on the device, the host does not wait."""
    if trainer.world_size > 1 and dist.is_available() and dist.is_initialized():
        value = value.to(trainer.strategy.root_device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


def max_over_ranks(trainer: pl.Trainer, value: int) -> int:
    """The largest `value` of any process, on every process."""
    if trainer.world_size == 1:
        return value
    return int(all_reduce_max(trainer, torch.tensor(value, device=trainer.strategy.root_device)).item())
