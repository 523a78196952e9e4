"""Collectives over processes: every process must call each function here, and all get the same result."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

_ROWS_AT_ONCE = 1024
"""Rows that are gathered at once: all samples together could fill the device's memory."""


def world_size() -> int:
    """Number of processes, 1 outside torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, 0 outside torch.distributed."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of every process's `value` (equal shapes)."""
    if world_size() == 1:
        return value
    total = value.to(_device()).clone()
    dist.all_reduce(total)
    return total.to(value.device)


def all_true(value: bool) -> bool:
    """Whether `value` is true on every process."""
    return int(sum_over_ranks(torch.tensor(int(value)))) == world_size()


def gather_objects(mine: T) -> list[T]:
    """The object of every process, in order of rank; for small objects that can be pickled."""
    if world_size() == 1:
        return [mine]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, mine)
    return found


def gather_rows(rows: Tensor) -> Tensor:
    """[n_r, ...] of every process -> [sum n_r, ...] in order of rank.

    n_r may differ; a process without rows may give zeros for sizes that it does not know.
    """
    if world_size() == 1:
        return rows
    mine = torch.tensor(rows.shape, device=_device())
    shapes = [torch.zeros_like(mine) for _ in range(world_size())]
    dist.all_gather(shapes, mine)
    lengths = [int(shape[0]) for shape in shapes]
    most, *sizes = torch.stack(shapes).amax(dim=0).tolist()
    of_rank: list[list[Tensor]] = [[] for _ in lengths]
    for begin in range(0, most, _ROWS_AT_ONCE):
        padded = torch.zeros(min(_ROWS_AT_ONCE, most - begin), *sizes, dtype=rows.dtype, device=_device())
        mine = rows[begin : begin + _ROWS_AT_ONCE]
        if len(mine):
            padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        for kept, part, length in zip(of_rank, parts, lengths, strict=True):
            kept.append(part[: max(0, length - begin)].to(rows.device))
    return torch.cat([part for kept in of_rank for part in kept]) if most else rows


def _device() -> torch.device:
    """The device of tensors in collectives: NCCL does not support the CPU."""
    if "nccl" in str(dist.get_backend()):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
