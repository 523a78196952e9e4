"""Drawing samples in the middle of training, spread over all processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import lightning.pytorch as pl
import torch
from torch import Tensor

from difflab.callbacks.ema import averaged
from difflab.callbacks.preemption import stop_together, stoppable, stopping_within
from difflab.callbacks.throughput import off_the_clock

Generate = Callable[[list[int], int], Tensor]
"""(indices, seed) -> uint8 [len(indices), C, H, W]; sample i depends on (seed, i) alone."""

Labels = Callable[[list[int], int], Sequence[int] | None]
"""(indices, seed) -> the class each sample is asked to show, or None where none is."""


@contextlib.contextmanager
def ready_to_sample(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[None]:
    """Inside: averaged weights if the run keeps them, evaluation mode, no gradients, no throughput counting.

    A signal that ends what goes on inside saves the run afterwards, and ends it.
    """
    training = [module for module in pl_module.modules() if module.training]
    with (
        stopping_within(trainer, pl_module),
        off_the_clock(trainer),
        averaged(trainer, pl_module),
        torch.no_grad(),
    ):
        pl_module.eval()
        try:
            yield
        finally:
            # Frozen parts were in evaluation mode before and stay there.
            for module in training:
                module.training = True


def batches_of_this_rank(trainer: pl.Trainer, n: int, batch_size: int) -> Iterator[list[int]]:
    """The sample indices 0..n-1 that fall to this process, in batches; together the processes have each one once.

    Raises Stopped between two batches on all processes where one was told to stop.
    """
    mine = list(range(n))[trainer.global_rank :: trainer.world_size]
    for begin in range(0, share_of_all(trainer, n), batch_size):
        stop_together(trainer)
        if begin < len(mine):
            yield mine[begin : begin + batch_size]


def share_of_all(trainer: pl.Trainer, n: int) -> int:
    """The largest number of n samples that falls to one process."""
    return -(-n // trainer.world_size)


def draw_on_all_ranks(trainer: pl.Trainer, generate: Generate, n: int, seed: int, batch_size: int) -> Tensor:
    """uint8 [n, C, H, W] on the CPU: samples 0..n-1 of `seed`, on every process."""
    share = share_of_all(trainer, n)
    mine = list(range(n))[trainer.global_rank :: trainer.world_size]
    # Gathering wants equal counts, so a process that has one sample less draws its first one (or sample 0) again.
    mine += [mine[0] if mine else 0] * (share - len(mine))
    batches: list[Tensor] = []
    for begin in range(0, share, batch_size):
        stop_together(trainer)
        with stoppable(trainer):
            batches.append(generate(mine[begin : begin + batch_size], seed))
    drawn = torch.cat(batches)
    if trainer.world_size == 1:
        return drawn.cpu()
    gathered = trainer.strategy.all_gather(drawn.to(trainer.strategy.root_device))
    return gathered.transpose(0, 1).flatten(0, 1)[:n].cpu()
