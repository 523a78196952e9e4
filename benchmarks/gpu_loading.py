"""Reading shards on a GPU's machine: into pinned memory by many processes, and on to the device."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.gpu_cases import ADM64, ADM256, CIFAR10, Case, Scale
from benchmarks.gpu_rates import flops_per_image
from benchmarks.gpu_report import Goal, Report
from benchmarks.loader import SHARDS, difflab_loader
from benchmarks.loader import Case as LoaderCase
from benchmarks.pairs import interleave
from benchmarks.stage import synchroniser
from difflab.data.processes import cores
from difflab.data.shapes.source import ShapesSource
from difflab.data.writing import write_shards
from difflab.devices import Accelerator

PIXELS = 131072
"""Images of a pass, times their side: the larger they are the fewer."""

SPARE = 2
"""Cores that do not read: one trains, one pins."""


def load(args: Scale, report: Report, accelerator: Accelerator) -> None:
    """Images a second at the sizes that are trained."""
    for case in (ADM64, CIFAR10, ADM256):
        report.attempt(case.name, lambda case=case: _load(case, args, report, torch.device(accelerator)))


def _load(case: Case, args: Scale, report: Report, device: torch.device) -> None:
    with case.stage(args, with_shards=False) as stage:
        data = stage.config.data
        goal = case.images
        if case.tflops is not None:
            goal = Goal(case.tflops.value * 1e12 / flops_per_image(stage, training=True))
    whole = data.batch_size * SHARDS
    images = whole if args.tiny else max(PIXELS // data.image_size // whole, 1) * whole
    workers = 0 if args.tiny else max(cores() - SPARE, 1)
    one = LoaderCase(data.image_size, "png", workers, images=images, batch=data.batch_size)
    with tempfile.TemporaryDirectory(prefix="difflab-benchmark-") as folder:
        path = Path(folder) / "shards"
        write_shards(ShapesSource(resolution=one.size, n=one.images), path, shard_size=one.images // SHARDS)
        loader = difflab_loader(one, path)
        pinned: list[bool] = []

        def step() -> None:
            for batch in loader:
                pinned.append(batch["image"].is_pinned())
                batch["image"].to(device, non_blocking=True)

        # The first pass starts the readers.
        rounds = interleave({"pass": step}, rounds=args.rounds, warmup=1, synchronise=synchroniser(device))
    rate = one.images / rounds.time_of("pass").median
    memory = "pinned" if all(pinned) else "not pinned"
    report.figure(f"loader, {one}, batches of {one.batch}", rate, "images/s", goal, memory=memory)
