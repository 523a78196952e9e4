"""How long `difflab data make` takes with all cores, with one process, and beside making its samples alone.

`samples` is one process that makes every sample, decoded, cut or drawn, and neither encodes nor writes it: what a loop
over the images takes. All write the same shards.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.machine import describe_machine, machine_lines
from benchmarks.pairs import Rounds, Step, as_json, interleave
from difflab.config.axes import SOURCES
from difflab.config.validate import validate
from difflab.data.processes import cores
from difflab.data.sources.base import Source
from difflab.data.writing import write_dataset

PAIRS = (("one process", "all cores"), ("all cores", "samples"))


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    facts = describe_machine()
    command.print_lines(*machine_lines(facts), f"{cores()} cores", "")
    command.print_lines("| samples/s, median | all cores | one process | samples alone | one process / all cores |")
    command.print_lines("|---|---|---|---|---|")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="difflab-benchmark-") as folder:
        for name, sources in cases(args, Path(folder)).items():
            rounds = time_making(sources, Path(folder) / "out", args.workers, args.rounds, args.warmup)
            command.print_lines(row(name, len(sources["train"]), rounds))
            results[name] = as_json(rounds, PAIRS, cpu=False)
    command.print_json(args.json, {"benchmark": "data_make", "machine": facts, "cases": results})


def cases(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, Source]]:
    """Scenes of 32 px, and JPEG files of 512 px to be cut to 64."""
    photos = folder / "photos"
    write_photos(photos, args.files, args.side)
    return {
        "shapes, 32 px": _opened("shapes", resolution=32, n=args.images, val=0),
        f"folder, {args.side} px JPEG to 64": _opened("folder", path=str(photos), resolution=64),
    }


def write_photos(folder: Path, count: int, side: int) -> None:
    """JPEG files with as much detail as photographs have: noise, most of it coarse."""
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8))
        picture = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.int16)
        picture = picture + rng.integers(-12, 13, picture.shape, dtype=np.int16)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06d}.jpg", quality=90)


def time_making(sources: Mapping[str, Source], out: Path, workers: int | None, rounds: int, warmup: int) -> Rounds:
    """Each way in turn; the first start of the processes, which import what they need, is a part of it."""
    contenders = {
        "all cores": _making(sources, out, workers),
        "one process": _making(sources, out, 0),
        "samples": lambda: _make_samples(sources),
    }
    return interleave(contenders, rounds=rounds, warmup=warmup)


def row(name: str, count: int, rounds: Rounds) -> str:
    """One line of the table."""
    rates = " | ".join(f"{count / rounds.time_of(way).median:.0f}" for way in rounds.names())
    ratio = rounds.ratio("one process", "all cores")
    return f"| {name} | {rates} | {ratio.median:.2f} ({ratio.q1:.2f} to {ratio.q3:.2f}) |"


def _opened(kind: str, **options: Any) -> dict[str, Source]:
    source = SOURCES[kind]
    return source.load_builder()(validate(source.config, {"kind": kind, **options}))


def _making(sources: Mapping[str, Source], out: Path, workers: int | None) -> Step:
    def step() -> None:
        write_dataset(sources, out, workers=workers)
        shutil.rmtree(out)

    return step


def _make_samples(sources: Mapping[str, Source]) -> None:
    for source in sources.values():
        for i in range(len(source)):
            source.sample(i)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command.parser("data_make", "Making data sets with all cores and with one.", rounds=5, warmup=1)
    parser.add_argument("--images", type=int, default=40_000, help="scenes of 32 px (default %(default)s)")
    parser.add_argument("--files", type=int, default=4000, help="JPEG files (default %(default)s)")
    parser.add_argument("--side", type=int, default=512, help="of a JPEG file in pixels (default %(default)s)")
    parser.add_argument("--workers", type=int, default=None, help="processes in place of one for each core")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(command.run(main))
