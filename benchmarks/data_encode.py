"""Images a second of `difflab data encode`, beside the bare forward pass of the same tower.

`encode` is all that the command does once the model is loaded: verifying the shards' hashes, reading and decoding, the
image tower, writing the new shards with their hashes and offset tables, and moving them into place. `bare` is that
tower alone, on batches of the same images and sizes that are already in memory, in float32, with whatever threads torch
has. They take turns in one process; a turn is all images, and a ratio, of their images a second, is of two turns of one
round. On a machine that others use, that of the CPU time, which waits for no disk, is the quieter one.
The weights are drawn, as their values change no time.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import command
from benchmarks.machine import describe_machine, machine_lines
from benchmarks.pairs import Rounds, Step, as_json, interleave, verdict
from difflab.commands.composing import compose_and_validate
from difflab.commands.data_encode import EncodeConfig
from difflab.commands.data_encoding import EncodeJob
from difflab.commands.processes import Processes
from difflab.config.learning import TrainingTexts
from difflab.config.train import TrainConfig
from difflab.data.encoded.encoder import Encoder
from difflab.data.encoded.planning import EncodePlan
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.data.shapes.source import ShapesSource
from difflab.data.writing import write_shards
from difflab.interop.native import save_export
from difflab.pipelines.encoders.clip import build
from difflab.pipelines.encoders.config import CLIPEncoderConfig
from difflab.tasks.build import build_model

PAIR = ("bare", "encode")
OF_BARE = 0.9
"""The share of the bare forward's images a second that encoding has to reach."""
SHARDS = 4


@dataclass(frozen=True)
class Case:
    """A CLIP of an experiment, and how many images of its size are encoded."""

    experiment: str
    images: int
    batch: int

    def __str__(self) -> str:
        return f"{self.experiment}, {self.images} images, batches of {self.batch}"


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    facts = describe_machine()
    command.print_lines(*machine_lines(facts), f"{torch.get_num_threads()} threads", "")
    command.print_lines("| images/s, median | bare | encode | encode / bare | quartiles | in CPU time |")
    command.print_lines("|---|---|---|---|---|---|")
    results: dict[str, Any] = {}
    for case in (Case(args.experiment, args.images, args.batch), *_large(args)):
        with tempfile.TemporaryDirectory(prefix="difflab-benchmark-") as folder:
            rounds = time_encoding(case, Path(folder), args.rounds, args.warmup, args.workers)
        command.print_lines(row(case, rounds))
        results[str(case)] = as_json(rounds, [PAIR], cpu=True)
    for name, found in results.items():
        share = found["ratios"]["bare / encode"]["median"]
        command.print_lines(verdict(f"{name}: time of encode / bare", 1 / share, 1 / OF_BARE))
    command.print_json(args.json, {"benchmark": "data_encode", "machine": facts, "cases": results})


def time_encoding(case: Case, folder: Path, rounds: int, warmup: int, workers: int) -> Rounds:
    """Both in turn, on one data set."""
    size = export_drawn(case.experiment, folder / "clip")
    source = ShapesSource(resolution=size, n=case.images)
    write_shards(source, folder / "shapes", shard_size=-(-case.images // SHARDS))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = CLIPEncoderConfig(kind="clip", run=str(folder / "clip"), fields=["image_embedding"])
    encoder = build(config, device, None)
    contenders = {
        "encode": _encoding(folder, encoder, case.batch, workers, device),
        "bare": _bare(encoder, batches_in_memory(folder / "shapes", case.batch, device)),
    }
    with torch.inference_mode():
        return interleave(contenders, rounds=rounds, warmup=warmup)


def export_drawn(experiment: str, folder: Path) -> int:
    """Writes the CLIP of an experiment with drawn weights; returns the size of its images."""
    config, _ = compose_and_validate("train", TrainConfig, [f"experiment={experiment}"])
    model = config.completed(TrainingTexts(lambda: ["a small red circle"], list)).model()
    save_export(folder, build_model(model).as_module().state_dict(), model.plain())
    return model.image_size


def batches_in_memory(data: Path, batch: int, device: torch.device) -> list[Tensor]:
    """All images uint8 [b, 3, H, W] in the batches in which they are encoded: of one shard each."""
    directory = open_data(data)
    dataset, batches, begin = ShardDataset(directory, "train"), [], 0
    for shard in directory.split("train").shards:
        images = torch.stack([dataset[begin + i]["image"] for i in range(shard.samples)]).to(device)
        batches += images.split(batch)
        begin += shard.samples
    return batches


def row(case: Case, rounds: Rounds) -> str:
    """One line of the table."""
    rates = " | ".join(f"{case.images / rounds.time_of(way).median:.0f}" for way in PAIR)
    ratio, cpu = rounds.ratio(*PAIR), rounds.ratio(*PAIR, "cpu")
    return f"| {case} | {rates} | {ratio.median:.3f} | {ratio.q1:.3f} to {ratio.q3:.3f} | {cpu.median:.3f} |"


def _encoding(folder: Path, encoder: Encoder, batch: int, workers: int, device: torch.device) -> Step:
    out = folder / "out"
    options = EncodeConfig(path=str(folder / "shapes"), out=str(out), batch_size=batch, workers=workers)

    def step() -> None:
        plan = EncodePlan(open_data(options.path), ["train"], encoder, "float16", options.captions, batch)
        EncodeJob(options, plan, Processes(), device).run()
        shutil.rmtree(out)

    return step


def _bare(encoder: Encoder, batches: Sequence[Tensor]) -> Step:
    assert encoder.images is not None, "it is an encoder of images"
    encode = encoder.images.encode

    def step() -> None:
        for batch in batches:
            # On a GPU the numbers are waited for, as encoding has to.
            {name: rows.cpu() for name, rows in encode(batch).items()}

    return step


def _large(args: argparse.Namespace) -> list[Case]:
    return [Case("clip/vit_b32", args.large, 32)] if args.large else []


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command.parser("data_encode", "Encoding a data set beside the bare forward pass.", rounds=7, warmup=1)
    parser.add_argument("--experiment", default="clip/shapes32", help="a CLIP (default %(default)s)")
    parser.add_argument("--images", type=command.at_least(1), default=4096, help="images (default %(default)s)")
    parser.add_argument("--batch", type=command.at_least(1), default=256, help="batch size (default %(default)s)")
    parser.add_argument(
        "--large", type=command.at_least(0), default=128, help="images of 224 px for clip/vit_b32, 0 leaves it out"
    )
    parser.add_argument("--workers", type=command.at_least(0), default=0, help="processes that read")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(command.run(main))
