"""What `sample` and `evaluate` share: the stored model, and drawing many samples in batches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from difflab.config.sample import DrawConfig
from difflab.errors import UserError
from difflab.models.devices import resolve_accelerator, sampling_autocast
from difflab.pipelines.single import SinglePipeline
from difflab.pipelines.stored import Stored, load_stored
from difflab.progress import track


@dataclass(frozen=True)
class Drawing:
    """A model ready to draw, the samples this process is to draw, and where it came from."""

    stored: Stored
    pipeline: SinglePipeline
    config: DrawConfig
    indices: list[int]
    batch_size: int

    def batches(self) -> Iterator[tuple[list[int], list[int] | None, Tensor]]:
        """(indices, classes, uint8 [b, C, H, W]) with a progress display."""
        chunks = [self.indices[i : i + self.batch_size] for i in range(0, len(self.indices), self.batch_size)]
        for chunk in track(chunks, len(chunks), f"sampling {len(self.indices)} images, batches"):
            classes = self.classes_of(chunk)
            yield chunk, classes, self.pipeline(chunk, self.config.seed, classes=classes)

    def classes_of(self, indices: Sequence[int]) -> list[int] | None:
        """The class of each sample, or None for a model without classes."""
        if self.config.classes is None:
            return self.pipeline.labels(indices, self.config.seed)
        return [self.config.classes[i % len(self.config.classes)] for i in indices]


def prepare_drawing(config: DrawConfig, rank: int = 0, world_size: int = 1) -> Drawing:
    """Load the model onto the device and share the samples out among the processes.

    Raises UserError where the configuration asks for what drawing cannot do.
    """
    if config.devices not in (1, "auto"):
        raise UserError(
            f"devices={config.devices}, but one command draws on one device; leave devices=1 and start a command per "
            "device with its own seed= and out="
        )
    if config.classes == []:
        raise UserError("classes=[] names no class; list some, or leave classes=null to draw them from the seed")
    if config.sampler.kind == "ddim_inversion":
        raise UserError("sampler=ddim_inversion goes from images to noise and draws none; choose ddim or ancestral")
    accelerator = resolve_accelerator(config.accelerator)
    device = torch.device("cuda", torch.cuda.current_device()) if accelerator == "cuda" else torch.device(accelerator)
    model, stored = load_stored(config.run, config.weights, device)
    if accelerator == "cuda":
        torch.set_float32_matmul_precision("high")
        model.network.to(memory_format=torch.channels_last)
    pipeline = SinglePipeline(
        model.network,
        model.conditioners,
        model.process,
        stored.config.shape,
        sampler=config.sampler,
        guidance=config.guidance,
        rounding=config.rounding,
        autocast=sampling_autocast(config.precision, accelerator),
    )
    if config.classes is not None:
        # Now, and not at the batch where the first wrong one turns up.
        pipeline.check_classes(config.classes)
    return Drawing(stored, pipeline, config, list(range(rank, config.n, world_size)), config.batch_size)


def home_of(path: Path) -> Path:
    """The folder that a stored model lies in: its run directory, or its exported folder."""
    return path.parent.parent if path.is_file() else path


def draw_name(config: DrawConfig) -> str:
    """`ddim-50-seed0`: what tells one drawing from another, for folder names."""
    steps = "all" if config.sampler.steps is None else re.sub(r"\W+", "_", str(config.sampler.steps)).strip("_")
    raw = "-raw" if config.weights == "raw" else ""
    return f"{config.sampler.kind}-{steps}-seed{config.seed}{raw}"
