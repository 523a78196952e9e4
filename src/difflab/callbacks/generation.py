"""Sampling during training, spread over all processes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence

import lightning.pytorch as pl
import torch
from torch import Tensor

from difflab.callbacks.ema import averaged
from difflab.callbacks.preemption import stop_together, stoppable, stopping_within
from difflab.callbacks.progress import showing
from difflab.callbacks.throughput import off_the_clock
from difflab.console import say_on_stderr
from difflab.images import to_uint8
from difflab.metrics.gather import gather_rows
from difflab.networks.mode import evaluating
from difflab.pipelines.finite import NonFiniteSamplesError, named
from difflab.tracking.grid import missing_tile

_log = logging.getLogger(__name__)

Generate = Callable[[list[int], int], Tensor]
"""(indices, seed) -> uint8 [len(indices), C, H, W]; sample i depends on (seed, i) alone."""


@contextlib.contextmanager
def ready_to_sample(trainer: pl.Trainer, pl_module: pl.LightningModule, what: str) -> Iterator[None]:
    """Inside: averaged weights if the run keeps them, evaluation mode, no gradients, no throughput counting.

    what: what is made inside, shown in place of the progress of training.
    A signal that interrupts the block saves the run afterwards, and ends it.
    """
    with (
        stopping_within(trainer, pl_module),
        off_the_clock(trainer),
        showing(trainer, pl_module, what),
        averaged(trainer, pl_module),
        torch.no_grad(),
        evaluating(pl_module),
    ):
        yield


def batches_of_this_rank(trainer: pl.Trainer, n: int, batch_size: int) -> Iterator[list[int]]:
    """This process's share of the sample indices 0..n-1, in batches; over all processes each index occurs once.

    Raises Stopped between two batches on all processes if one received a signal to stop.
    """
    mine = list(range(n))[trainer.global_rank :: trainer.world_size]
    for begin in range(0, share_of_all(trainer, n), batch_size):
        stop_together(trainer)
        if begin < len(mine):
            yield mine[begin : begin + batch_size]


def share_of_all(trainer: pl.Trainer, n: int) -> int:
    """The largest number of n samples that one process generates."""
    return -(-n // trainer.world_size)


def draw_marked(generate: Generate, indices: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """uint8 [b, C, H, W], with a marker tile for each sample that is not finite, and int64 [b]: the sampling step at
    which it became so, from 1, or 0 for a finite sample."""
    try:
        images = generate(indices, seed)
        return images, torch.zeros(len(indices), dtype=torch.int64, device=images.device)
    except NonFiniteSamplesError as bad:
        images = to_uint8(bad.drawn)
        steps = torch.tensor(bad.steps, device=images.device)
        images[steps > 0] = missing_tile(*images.shape[1:]).to(images.device)
        return images, steps


def draw_on_all_ranks(
    trainer: pl.Trainer, generate: Generate, n: int, seed: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """uint8 [n, C, H, W] and int64 [n] as in `draw_marked`, on the CPU of every process: samples 0..n-1."""
    share = share_of_all(trainer, n)
    mine = list(range(n))[trainer.global_rank :: trainer.world_size]
    # Gathering needs equal counts, so a process that has one sample less draws its first one (or sample 0) again.
    mine += [mine[0] if mine else 0] * (share - len(mine))
    drawn: list[tuple[Tensor, Tensor]] = []
    for begin in range(0, share, batch_size):
        stop_together(trainer)
        with stoppable(trainer):
            drawn.append(draw_marked(generate, mine[begin : begin + batch_size], seed))
    return tuple(_of_all_ranks(trainer, torch.cat(parts), n) for parts in zip(*drawn, strict=True))  # pyrefly: ignore


def _of_all_ranks(trainer: pl.Trainer, rows: Tensor, n: int) -> Tensor:
    if trainer.world_size == 1:
        return rows.cpu()
    gathered = trainer.strategy.all_gather(rows.to(trainer.strategy.root_device))
    return gathered.transpose(0, 1).flatten(0, 1)[:n].cpu()


def bad_samples(indices: Sequence[int], steps: Sequence[int]) -> Tensor:
    """int64 [k, 2] of all processes together: index and sampling step of every sample that is not finite."""
    mine = [[index, step] for index, step in zip(indices, steps, strict=True) if step]
    return gather_rows(torch.tensor(mine, dtype=torch.int64).reshape(-1, 2))


def report_bad_samples(bad: Tensor, n: int, train_step: int, what: str) -> None:
    """Reports on the terminal and in the log which of n samples are not finite. bad: as returned by `bad_samples`."""
    ordered = bad[bad[:, 0].argsort()]
    line = (
        f"{what} at step {train_step}: {named(ordered[:, 0].tolist())} not finite, {len(bad)} of {n}, "
        f"from sampling step {int(bad[:, 1].min())} on"
    )
    _log.info(line)
    say_on_stderr(f"note: {line}")
