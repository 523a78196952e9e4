"""Run by two processes (see test_two_ranks): each trains under DDP, once for every scenario, and writes what it saw to
<folder>/<scenario>/<rank>.json."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from callbacks.tiny import Tiny, loader, trainer
from difflab.callbacks.checkpoint import LAST, Checkpoint
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.clock import Clock
from difflab.callbacks.ema import EMA
from difflab.callbacks.evaluation import Evaluation
from difflab.callbacks.guard import NonFiniteError, NonFiniteGuard
from difflab.callbacks.power_ema import PowerEMA
from difflab.callbacks.preemption import Preempted, Preemption
from difflab.callbacks.sample_grid import SampleGrid
from difflab.commands.processes import leave_process_group
from difflab.machine import MachineError
from difflab.pipelines.finite import NonFiniteSamplesError
from difflab.tasks.training_module import StepTerms
from difflab.tracking.csv import CSVLogger
from difflab.types import Batch

RANK = int(os.environ["RANK"])


class RankTiny(Tiny):
    """Rank r trains on other numbers than rank 0, and only rank 1 meets NaN."""

    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        if RANK == 0:
            self.bad_batches, self.bad_samples = set(), set()
        terms = super().terms(batch, seeds, training=training)
        return replace(terms, minimised=terms.minimised * (1.0 + RANK))


class SignalMyself(Callback):
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if RANK == 1 and pl_module.train_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


class Record:
    """An evaluator that keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def update(self, images: Tensor, index: Tensor, *, label: Tensor | None = None, **texts: Any) -> None:
        self.seen += images[:, 0, 0, 0].tolist()

    def compute(self) -> list[Any]:
        return []


def generate(indices: list[int], seed: int) -> Tensor:
    return torch.stack([torch.full((1, 2, 2), 10 * i, dtype=torch.uint8) for i in indices])


def fit(root: Path, steps: int, model: Tiny, callbacks: list[Callback]) -> pl.Trainer:
    run = trainer(root, steps, callbacks, plugins=[AtomicCheckpointIO()], devices=2, strategy="ddp")
    run.fit(model, loader(30))
    return run


def averages_and_guard(folder: Path) -> dict[str, Any]:
    model, ema, guard = RankTiny(bad_batches=[2]), EMA(0.8), NonFiniteGuard()
    record = Record()
    grid = SampleGrid(folder / "samples", generate, every_steps=100, n=3, columns=3, min_side=1)
    evaluation = Evaluation(folder / "evaluations.jsonl", generate, lambda: record, n=5, batch_size=2)
    power = PowerEMA(folder / "power_ema", sigma_rel=[0.1], snapshot_every_steps=100)
    fit(folder, 5, model, [guard, ema, power, grid, evaluation])
    return {
        "skipped_flags": model.skipped_flags,
        "train_step": model.train_step,
        "weight": model.network.weight.tolist(),
        "average": ema.averages["network.weight"].tolist(),
        "power_average": power.averages[0.1]["network.weight"].tolist(),
        "evaluated": record.seen,
    }


def not_finite(folder: Path) -> dict[str, Any]:
    """Rank 1 alone draws a sample that is not finite; both leave the numbers out."""

    def draw(indices: list[int], seed: int) -> Tensor:
        images = generate(indices, seed)
        if 3 in indices:
            raise NonFiniteSamplesError("one is not", [4 * (i == 3) for i in indices], (images + 0.5) / 127.5 - 1)
        return images

    class NoNumbers(Record):
        def compute(self) -> list[Any]:
            raise AssertionError("there is something to compute")

    model, csv = RankTiny(), CSVLogger(folder / "metrics.csv")
    grid = SampleGrid(folder / "samples", draw, every_steps=100, n=5, columns=5, min_side=1)
    evaluation = Evaluation(folder / "evaluations.jsonl", draw, NoNumbers, n=5, batch_size=2)
    run = trainer(
        folder, 2, [Clock(), grid, evaluation], plugins=[AtomicCheckpointIO()], devices=2, strategy="ddp", logger=csv
    )
    run.fit(model, loader(30))
    return {"train_step": model.train_step}


def too_many(folder: Path) -> dict[str, Any]:
    try:
        fit(folder, 5, RankTiny(bad_batches=[1, 2]), [NonFiniteGuard(max_in_a_row=2)])
    except NonFiniteError as error:
        return {"stopped": str(error)}
    return {}


def full_disk(folder: Path) -> dict[str, Any]:
    real_open = Path.open

    def limited(self: Path, *args: Any, **kwargs: Any) -> Any:
        return real_open(Path("/dev/full") if "step-000002.ckpt.partial" in self.name else self, *args, **kwargs)

    Path.open = limited  # type: ignore[method-assign]
    try:
        fit(folder, 5, RankTiny(), [Checkpoint(folder / "full", every_steps=1)])
    except MachineError as error:
        return {"full": str(error), "files": sorted(p.name for p in (folder / "full").iterdir())}
    finally:
        Path.open = real_open  # type: ignore[method-assign]
    return {}


def preempted(folder: Path) -> dict[str, Any]:
    model = RankTiny()
    callbacks = [SignalMyself(), Checkpoint(folder / "preempted", every_steps=100), Preemption(check_every=2)]
    try:
        fit(folder, 9, model, callbacks)
    except Preempted as error:
        saved = torch.load(folder / "preempted" / LAST, weights_only=True)["difflab"]["train_step"]
        return {"status": error.code, "train_step": model.train_step, "saved": saved}
    return {}


if __name__ == "__main__":
    for scenario in (averages_and_guard, not_finite, too_many, full_disk, preempted):
        target = Path(sys.argv[1]) / scenario.__name__
        target.mkdir(exist_ok=True)
        (target / f"{RANK}.json").write_text(json.dumps(scenario(target)))
    leave_process_group()
    # Now and then an interpreter that ends after gloo aborts (torch 2.14); what is tested here is done by then.
    os._exit(0)
