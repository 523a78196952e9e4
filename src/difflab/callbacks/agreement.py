"""Decisions that all processes must make alike."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor

from difflab.machine import MachineError


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


def refuse_together(trainer: pl.Trainer, refused: MachineError | None) -> None:
    """Raises MachineError on every process if the first one has one; all processes must call it together."""
    first = trainer.strategy.broadcast(None if refused is None else (refused.errno, refused.filename))
    if first is not None:
        raise MachineError(*first) from refused
