"""Reading encoded latents: shards as `difflab data encode first_stage=...` writes them, through the loader of training.

The moments are random numbers, whose values change no time; all else of the shards is that command's own: images of
which they would be the latents, and the moments of the mirrored ones, which a batch has in place of half of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import command
from benchmarks.loader import pass_over
from benchmarks.pairs import Rounds, as_json, interleave, verdict
from difflab.cache import cache_root
from difflab.commands.data_encode import EncodeConfig
from difflab.commands.data_encoding import EncodeJob
from difflab.commands.processes import Processes
from difflab.config.data import DataConfig
from difflab.data.build import build_train_loader
from difflab.data.encoded.encoder import Encoder, ImageEncoding, Outputs
from difflab.data.encoded.planning import EncodePlan
from difflab.data.loader import ShardLoader
from difflab.data.opening import open_data
from difflab.data.shapes.source import ShapesSource
from difflab.data.writing import write_shards
from difflab.networks.first_stage.build import mirrored_field, moments_field

MOMENTS = (8, 16, 16)
"""Of images of 64 px whose latents are 4x16x16: means and log-variances."""
PIXELS = 64
SHARDS = 4
LATENTS_A_SECOND = 5000

_SHA256 = "0" * 64
FIELD = moments_field(_SHA256)


def measure(latents: int, batch: int, workers: Sequence[int], rounds: int, warmup: int) -> dict[str, Any]:
    """Passes over the shards with each number of reading processes in turn; tells what they reach."""
    whole = max(latents // batch, 1) * batch
    command.print_lines(f"Reading {whole} encoded latents, {MOMENTS} float32, batches of {batch}:", "")
    cache_root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="difflab-benchmark-", dir=cache_root()) as folder:
        data = write_latents(Path(folder), whole)
        found = time_reading(data, whole, batch, workers, rounds, warmup)
    command.print_lines("| workers | latents/s, median | quartiles |", "|---|---|---|")
    rates: dict[str, float] = {}
    for name in found.names():
        time = found.time_of(name)
        rates[name] = whole / time.median
        command.print_lines(f"| {name} | {rates[name]:.0f} | {whole / time.q3:.0f} to {whole / time.q1:.0f} |")
    best = max(rates.values())
    command.print_lines("", verdict(f"s for {LATENTS_A_SECOND} latents", LATENTS_A_SECOND / best, 1.0), "")
    return {**as_json(found, [], cpu=False), "latents_per_s": rates}


def write_latents(folder: Path, count: int) -> Path:
    """Images with moments beside them."""
    shapes, out = folder / "shapes", folder / "latents"
    write_shards(ShapesSource(resolution=PIXELS, n=count), shapes, shard_size=-(-count // SHARDS))
    options = EncodeConfig(path=str(shapes), out=str(out), workers=0)
    plan = EncodePlan(open_data(shapes), ["train"], random_encoder(), "float32", options.captions, options.batch_size)
    EncodeJob(options, plan, Processes(), torch.device("cpu")).run()
    return out


def random_encoder() -> Encoder:
    """What gives random moments for images, and others for mirrored ones."""
    generator = torch.Generator().manual_seed(0)
    fields = (FIELD, mirrored_field(FIELD))

    def encode(pixels: Tensor) -> Outputs:
        return {field: torch.randn(len(pixels), *MOMENTS, generator=generator) for field in fields}

    mirrored = {FIELD: mirrored_field(FIELD)}
    return Encoder("first_stage", _SHA256, ImageEncoding(fields, encode, PIXELS, channels=3, mirrored=mirrored))


def time_reading(data: Path, latents: int, batch: int, workers: Sequence[int], rounds: int, warmup: int) -> Rounds:
    """Passes in turn. The first starts the workers, so it never counts."""
    loaders = {str(number): latents_loader(data, latents, batch, number) for number in workers}
    steps = {name: pass_over(loader) for name, loader in loaders.items()}
    return interleave(steps, rounds=rounds, warmup=max(warmup, 1))


def latents_loader(data: Path, latents: int, batch: int, workers: int) -> ShardLoader:
    """The loader of a training from encoded shards with data.flip=true."""
    config = DataConfig(
        path=str(data),
        val_split=None,
        image_size=PIXELS,
        batch_size=batch,
        workers=workers,
        fields=[FIELD],
        flip=True,
    )
    return build_train_loader(config, seed=0, total_batches=latents // batch, images=False)
