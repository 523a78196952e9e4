"""Images a second of difflab's loader and of plain WebDataset, from the same tars to uint8 batches.

A turn is one pass over the shards: with workers a shorter one would be timed on what they had read ahead. Both
shuffle, and both decode the image alone; difflab's order is exact and resumable, the peer's is a shuffle buffer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.machine import describe_machine, machine_lines
from benchmarks.pairs import Rounds, Step, as_json, interleave
from difflab.config.data import DataConfig
from difflab.data.build import build_train_loader
from difflab.data.encode import ImageFormat
from difflab.data.shapes.source import ShapesSource
from difflab.data.writing import write_shards

SHARDS = 4
"""So that each worker of the peer, which hands out whole shards, has as many."""

PAIR = ("difflab", "webdataset")


@dataclass(frozen=True)
class Case:
    """One size and format of images, read with some workers."""

    size: int
    image_format: ImageFormat
    workers: int
    images: int
    batch: int

    def __str__(self) -> str:
        return f"{self.size} px {self.image_format}, {self.workers} workers"


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    facts = describe_machine()
    command.print_lines(*machine_lines(facts), f"batches of {args.batch}", "")
    command.print_lines("| images/s, median | difflab | webdataset | difflab's time / webdataset's | quartiles |")
    command.print_lines("|---|---|---|---|---|")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="difflab-benchmark-") as folder:
        for case in cases(args):
            path = Path(folder) / f"{case.size}-{case.image_format}"
            if not path.exists():
                source = ShapesSource(resolution=case.size, n=case.images)
                write_shards(source, path, shard_size=case.images // SHARDS, image_format=case.image_format)
            rounds = time_loaders(case, path, args.rounds, args.warmup)
            command.print_lines(row(case, rounds))
            results[str(case)] = as_json(rounds, [PAIR], cpu=False)
    command.print_json(args.json, {"benchmark": "loader", "machine": facts, "cases": results})


def cases(args: argparse.Namespace) -> list[Case]:
    """Every size with every format and number of workers; the fewer images the larger they are.

    Shards hold whole batches, so that nobody drops a tail that the other reads.
    """
    whole = args.batch * SHARDS
    return [
        Case(size, image_format, workers, max(args.images * 32 // size // whole, 1) * whole, args.batch)
        for size in args.sizes
        for image_format in args.formats
        for workers in args.workers
    ]


def time_loaders(case: Case, path: Path, rounds: int, warmup: int) -> Rounds:
    """Passes over the shards in turn. The first starts the workers, so it never counts."""
    contenders = {"difflab": pass_over(difflab_loader(case, path)), "webdataset": pass_over(peer_loader(case, path))}
    return interleave(contenders, rounds=rounds, warmup=max(warmup, 1))


def difflab_loader(case: Case, path: Path) -> Iterable[Any]:
    """The loader of training; an iteration is as many batches as the shards fill."""
    config = DataConfig(
        path=str(path), val_split=None, image_size=case.size, batch_size=case.batch, workers=case.workers
    )
    return build_train_loader(config, seed=0, total_batches=case.images // case.batch)


def peer_loader(case: Case, path: Path) -> Iterable[Any]:
    """WebDataset as its manual builds it, decoding nothing but the image."""
    import webdataset as wds

    kind = case.image_format
    dataset = (
        wds.WebDataset([str(tar) for tar in sorted(path.glob("*.tar"))], shardshuffle=SHARDS)
        .shuffle(1000)
        .decode("torchrgb8", only=[kind])
        .to_tuple(kind)
        .batched(case.batch, partial=False)
    )
    return wds.WebLoader(dataset, batch_size=None, num_workers=case.workers, persistent_workers=case.workers > 0)


def pass_over(loader: Iterable[Any]) -> Step:
    """A step that takes every batch of one iteration."""

    def step() -> None:
        for _ in loader:
            pass

    return step


def row(case: Case, rounds: Rounds) -> str:
    """One line of the table."""
    rates = " | ".join(f"{case.images / rounds.time_of(name).median:.0f}" for name in PAIR)
    ratio = rounds.ratio(*PAIR)
    return f"| {case} | {rates} | {ratio.median:.3f} | {ratio.q1:.3f} to {ratio.q3:.3f} |"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command.parser("loader", "difflab's loader against plain WebDataset.", rounds=7, warmup=1)
    parser.add_argument("--images", type=int, default=4096, help="of 32 px, fewer of larger ones (default %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="default %(default)s")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 256], help="pixels a side")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="reading processes")
    parser.add_argument("--formats", choices=["png", "jpg"], nargs="+", default=["png", "jpg"])
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(command.run(main))
