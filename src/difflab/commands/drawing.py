"""What `sample` and `evaluate` share: the stored model, and drawing many samples in batches."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from difflab.commands.limits import memory_of, refusing_too_large, require_memory
from difflab.commands.processes import Processes, started
from difflab.config.editing import EDITING
from difflab.config.request import GIVEN
from difflab.config.sample import DrawConfig
from difflab.config.sampler import refuse_inversion
from difflab.console import say_on_stderr
from difflab.devices import Accelerator, resolve_accelerator, sampling_autocast
from difflab.errors import user_errors
from difflab.pipelines.base import Pipeline
from difflab.pipelines.build import StoredModels, build_pipeline, files_of
from difflab.pipelines.stored import Stored
from difflab.progress import track
from difflab.types import Batch

CHANGES_PICTURES = (*GIVEN, *EDITING, "pipeline", "sampler", "guidance", "rounding", "precision", "weights")
"""Keys of a drawing, besides n and seed, that make it another one."""

MANY_BATCHES = 10_000
"""From so many on the first line is not waited for."""

FLOATS_A_PIXEL = 4
"""What any sampler holds at least: x, its noise, and what the network takes and gives."""


@dataclass(frozen=True)
class Drawing:
    """A model ready to draw, where it came from, and which process's share is drawn here.

    files: those that decide what is drawn besides the configuration.
    """

    stored: Stored
    pipeline: Pipeline
    config: DrawConfig
    processes: Processes
    files: list[Path]

    @property
    def indices(self) -> range:
        """The numbers of this process's samples; together the processes have 0..n-1, each once."""
        return range(self.processes.rank, self.config.n, self.processes.world_size)

    def batches(self, kept: Callable[[list[int]], Tensor | None] | None = None) -> Iterator[tuple[Batch, Tensor]]:
        """(what is asked for, uint8 [b, C, H, W]) of this process; the first one displays its progress.

        kept: the images of a batch that was drawn before, or None for one that has to be drawn.

        Raises UserError for samples that are not finite, and where a batch does not fit the memory of the device.
        """
        indices, size = self.indices, self.config.batch_size
        count = -(-len(indices) // size)
        chunks = (list(indices[i : i + size]) for i in range(0, len(indices), size))
        devices = self.processes.world_size
        unit = f" on {devices} devices, batches of each" if devices > 1 else ", batches"
        what = f"sampling {self.config.n} images{unit}"
        if self.processes.is_main and count >= MANY_BATCHES:
            say_on_stderr(f"{what}: {count} to draw")
        for chunk in track(chunks, count, what) if self.processes.is_main else chunks:
            images = None if kept is None else kept(chunk)
            asked = self.pipeline.request(chunk, self.config.seed)
            if images is None:
                with refusing_too_large(f"batch_size={size}"):
                    images = self.pipeline.drawn(asked, self.config.seed)
            yield asked, images


@contextlib.contextmanager
def drawing_of(config: DrawConfig) -> Iterator[Drawing]:
    """Start a process for each device; inside, each of them is ready to draw its share.

    Raises UserError where the configuration asks for what drawing, or this machine, cannot do.
    """
    with drawing_processes(config) as (processes, models):
        with processes.agreeing():
            drawing = prepare_drawing(config, processes, models)
        yield drawing


@contextlib.contextmanager
def drawing_processes(config: DrawConfig) -> Iterator[tuple[Processes, StoredModels]]:
    """Start a process for each device; inside, each has a place for the models that it loads onto its device."""
    accelerator = resolve_accelerator(config.accelerator)
    with started(config.devices, accelerator, config.ranks) as processes:
        yield processes, models_on(accelerator)


def models_on(accelerator: Accelerator) -> StoredModels:
    """A place for stored models on the device of this process."""
    if accelerator != "cuda":
        return StoredModels(accelerator)
    torch.set_float32_matmul_precision("high")
    return StoredModels(torch.device("cuda", torch.cuda.current_device()), torch.channels_last)


def prepare_drawing(
    config: DrawConfig, processes: Processes | None = None, models: StoredModels | None = None
) -> Drawing:
    """Load the models that are not there yet, and put the pipeline together.

    Raises UserError where the configuration asks for what drawing cannot do.
    """
    with user_errors():
        refuse_inversion(config.sampler)
    processes = processes or Processes()
    accelerator = resolve_accelerator(config.accelerator)
    autocast = sampling_autocast(config.precision, accelerator)
    models = models or models_on(accelerator)
    pipeline, stored = build_pipeline(config, models, autocast=autocast)
    shape = stored.config.shape
    require_memory(
        f"batch_size={config.batch_size}: {min(config.batch_size, config.n)} images of {shape} at once",
        min(config.batch_size, -(-config.n // processes.world_size)) * FLOATS_A_PIXEL * 4 * math.prod(shape),
        memory_of(pipeline.device),
        "lower batch_size",
    )
    return Drawing(stored, pipeline, config, processes, files_of(config, models, pipeline.request))


def draw_name(config: DrawConfig, *also: str) -> str:
    """`ddim-50-seed0-3fa2c1`: what tells one drawing from another, for folder names.

    The last part is of all that changes pictures, also of the file where the run is given as a checkpoint, and of the
    keys in `also`.
    """
    how = config.model_dump(mode="json", include={*CHANGES_PICTURES, *also})
    if config.run is not None and Path(config.run).is_file():
        how["checkpoint"] = Path(config.run).name
    digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()
    if config.pipeline.kind != "single":
        return f"{config.pipeline.kind}-seed{config.seed}-{digest[:6]}"
    steps = "all" if config.sampler.steps is None else re.sub(r"\W+", "_", str(config.sampler.steps)).strip("_")
    raw = "-raw" if config.weights == "raw" else ""
    return f"{config.sampler.kind}-{steps}-seed{config.seed}{raw}-{digest[:6]}"
