"""What `sample` and `evaluate` share: the stored model, its defaults, and drawing many samples in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from difflab.commands.hydra_app import SHOWING
from difflab.config.sample import DrawConfig
from difflab.models.devices import resolve_accelerator, sampling_autocast
from difflab.pipelines.single import SinglePipeline
from difflab.pipelines.stored import Stored, find_stored, load_stored
from difflab.tracking.progress import track


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
        for chunk in track(chunks, "sampling", weight=len, unit="images"):
            classes = self.classes_of(chunk)
            yield chunk, classes, self.pipeline(chunk, self.config.seed, classes=classes)

    def classes_of(self, indices: Sequence[int]) -> list[int] | None:
        """The class of each sample, or None for a model without classes."""
        if self.config.classes is None:
            return self.pipeline.labels(indices, self.config.seed)
        return [self.config.classes[i % len(self.config.classes)] for i in indices]


def prepare_drawing(config: DrawConfig, rank: int = 0, world_size: int = 1) -> Drawing:
    """Load the model onto the device and share the samples out among the processes."""
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
    return Drawing(stored, pipeline, config, list(range(rank, config.n, world_size)), config.batch_size)


def with_defaults_of_run(argv: Sequence[str], weights: str = "ema") -> list[str]:
    """The overrides, after those that make the stored run's own sampler and guidance the starting point.

    A group that the user chooses (`sampler=ddim`) starts from that choice instead.
    """
    run = next((a.split("=", 1)[1] for a in argv if a.startswith("run=")), None)
    if run is None or any(a.split("=")[0] in SHOWING for a in argv):
        return list(argv)
    which = next((a.split("=", 1)[1] for a in argv if a.startswith("weights=")), weights)
    config = find_stored(run.strip("'\""), "raw" if which == "raw" else "ema").config
    defaults: list[str] = []
    for group, choice in (("sampler", config.sampler), ("guidance", config.guidance)):
        if not any(a.startswith(f"{group}=") for a in argv):
            values = choice.model_dump()
            defaults += [f"{group}={values.pop('kind')}"]
            defaults += [f"{group}.{key}={_hydra_value(value)}" for key, value in values.items()]
    return [*defaults, *argv]


def _hydra_value(value: Any) -> str:
    return json.dumps(value)
