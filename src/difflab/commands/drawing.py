"""What `sample` and `evaluate` share: the stored model, and drawing many samples in batches."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from difflab.commands.command import Kept, Machine
from difflab.commands.limits import memory_of, refusing_too_large, require_memory
from difflab.commands.processes import Processes
from difflab.commands.shares import shares
from difflab.compiling import Compilation
from difflab.config.editing import EDITING
from difflab.config.metrics import MetricsConfig
from difflab.config.request import GIVEN
from difflab.config.sample import DrawConfig
from difflab.config.sampler import refuse_inversion
from difflab.devices import Accelerator, resolve_accelerator, sampling_autocast
from difflab.errors import user_errors
from difflab.metrics.paired import Pairs
from difflab.metrics.protocol import SamplingRecord
from difflab.pipelines.base import Pipeline
from difflab.pipelines.build import StoredModels, build_pipeline, files_of
from difflab.pipelines.evaluating import refuse_other_samples, sampling_record
from difflab.pipelines.pairing import pairs_of
from difflab.pipelines.stored import Stored
from difflab.requests.words import in_words
from difflab.types import Batch

if TYPE_CHECKING:
    from difflab.tracking.job import Job
    from difflab.tracking.rundir import RunDirectory

CHANGES_PICTURES = (*GIVEN, "split", *EDITING, "pipeline", "sampler", "guidance", "rounding", "precision", "weights")
"""Keys of a drawing, besides n and seed, that make it another one."""

CHANGES_MEASURES = ("metrics", "data")
"""Keys of an evaluation that change its numbers with the pictures left as they are."""

FLOATS_A_PIXEL = 4
"""What any sampler holds at least: x, its noise, and what the network takes and gives."""


@dataclass(frozen=True)
class Drawing:
    """A model ready to draw, where it came from, and which process's share is drawn here; its samples can be judged.

    files: those that decide what is drawn besides the configuration.
    compilation: which of the networks are compiled, once they have drawn.
    """

    stored: Stored
    pipeline: Pipeline
    config: DrawConfig
    processes: Processes
    files: list[Path]
    compilation: Compilation

    @property
    def n(self) -> int:
        """How many samples are drawn."""
        return self.config.n

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a sample."""
        return self.stored.config.shape

    @property
    def device(self) -> torch.device:
        """Where samples are drawn and judged."""
        return self.pipeline.device

    @property
    def kept(self) -> Kept:
        """`<run>/evaluations`, where each protocol has a folder, and so a W&B run, of its own."""
        name = f"{draw_name(self.config, *CHANGES_MEASURES)}-n{self.config.n}"
        return Kept(self.stored.home / "evaluations", name, self.files)

    @property
    def also_kept_in(self) -> Path:
        """The run's own file of records."""
        return self.stored.home / "evaluations.jsonl"

    def sampling(self) -> SamplingRecord:
        """How the samples are made; compiled or not is known once they are."""
        record = sampling_record(self.pipeline, seed=self.config.seed, weights=self.stored.which)
        return record.model_copy(update={"compiled": self.compilation.used})

    def described(self) -> dict[str, Any]:
        """What the model is, and how the pipeline draws."""
        return {"model": self.stored.config.model_dump(mode="json"), "sampling": self.pipeline.record()}

    def pairs(self, metrics: MetricsConfig) -> Pairs:
        """What each sample is compared with by the metrics that do."""
        return pairs_of(self.pipeline, self.config.seed)

    def class_names(self, of_data: Sequence[str] | None) -> Sequence[str] | None:
        """What the classes that samples show are called, by the data set or else by the model."""
        return self.pipeline.wanted.class_names if of_data is None else of_data

    def check(self, metrics: MetricsConfig, class_names: Sequence[str] | None) -> None:
        """Raises UserError where a metric looks for classes, and the model has another number of them, and where one
        says nothing of such samples."""
        refuse_other_samples(metrics, self.shape, self.pipeline.wanted.classes, class_names)

    def words(self, n: int) -> list[str] | None:
        """What each of the first n samples has to show, in words; None where they are asked for nothing."""
        requested = self.pipeline.request.without_pictures()(range(n), self.config.seed)
        return in_words(requested, self.pipeline.wanted.class_names)

    def job(self, out: RunDirectory, identity: Any) -> Job:
        """The tracker's run of an evaluation, in the group of the run that is judged."""
        from difflab.tracking.job import Job

        return Job.measuring("evaluate", self.stored, out, identity)

    def batches(self, kept: Callable[[list[int]], Tensor | None] | None = None) -> Iterator[tuple[Batch, Tensor]]:
        """(what is asked for, and what one stage of a cascade drew for the next one to enlarge as `low_res`;
        uint8 [b, C, H, W]) of this process; the first one displays its progress.

        kept: the images of a batch that was drawn before, or None for one that has to be drawn.

        Raises UserError for samples that are not finite, and where a batch does not fit the memory of the device.
        """
        size = self.config.batch_size
        for chunk in shares(self.processes, self.n, size, f"sampling {self.n} images"):
            images = None if kept is None else kept(chunk)
            requested = self.pipeline.request(chunk, self.config.seed)
            if images is None:
                handed: list[Tensor] = []
                with refusing_too_large(f"batch_size={size}"):
                    images = self.pipeline.drawn(requested, self.config.seed, handed.append)
                if handed:
                    requested["low_res"] = handed[0]
            yield requested, images


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
    compilation = Machine(processes, models).compilation(config.compile, config.n, config.batch_size)
    pipeline, stored = build_pipeline(config, models, autocast=autocast, compilation=compilation)
    shape = stored.config.shape
    require_memory(
        f"batch_size={config.batch_size}: {min(config.batch_size, config.n)} images of {shape} at once",
        min(config.batch_size, -(-config.n // processes.world_size)) * FLOATS_A_PIXEL * 4 * math.prod(shape),
        memory_of(pipeline.device),
        "lower batch_size",
    )
    return Drawing(stored, pipeline, config, processes, files_of(config, models, pipeline.request), compilation)


def draw_name(config: DrawConfig, *also: str) -> str:
    """`ddim-50-seed0-3fa2c1`: what tells one drawing from another, for folder names.

    The last part is of all that changes pictures, also of the file where the run is given as a checkpoint, and of the
    keys in `also`.
    """
    how = config.model_dump(mode="json", include={*CHANGES_PICTURES, *also})
    if config.compile != "auto":
        how["compile"] = config.compile
    if config.run is not None and Path(config.run).is_file():
        how["checkpoint"] = Path(config.run).name
    digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()
    if config.pipeline.kind != "single":
        return f"{config.pipeline.kind}-seed{config.seed}-{digest[:6]}"
    steps = "all" if config.sampler.steps is None else re.sub(r"\W+", "_", str(config.sampler.steps)).strip("_")
    raw = "-raw" if config.weights == "raw" else ""
    return f"{config.sampler.kind}-{steps}-seed{config.seed}{raw}-{digest[:6]}"
