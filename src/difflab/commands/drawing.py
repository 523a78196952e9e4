"""What `sample` and `evaluate` share: a stored model, and generating many samples in batches."""

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
from difflab.data.boxes import Box
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
"""Keys of a sampling run, besides n and seed, that change its samples."""

CHANGES_MEASURES = ("metrics", "data")
"""Keys of an evaluation that change its results but not the samples."""

FLOATS_A_PIXEL = 4
"""The least number of tensors in a sampler: x, its noise, and the network's input and output."""


@dataclass(frozen=True)
class Drawing:
    """A pipeline ready to sample, the stored model it comes from, and this process's share; implements `Judged`.

    files: the files that the samples depend on besides the configuration.
    compilation: which of the networks are compiled, known after sampling.
    """

    stored: Stored
    pipeline: Pipeline
    config: DrawConfig
    processes: Processes
    files: list[Path]
    compilation: Compilation

    @property
    def n(self) -> int:
        """The number of samples."""
        return self.config.n

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a sample."""
        return self.pipeline.shape

    @property
    def device(self) -> torch.device:
        """The device for sampling and evaluation."""
        return self.pipeline.device

    @property
    def kept(self) -> Kept:
        """`<run>/evaluations`, where each protocol has its own folder and W&B run."""
        name = f"{draw_name(self.config, *CHANGES_MEASURES)}-n{self.config.n}"
        return Kept(self.stored.home / "evaluations", name, self.files)

    @property
    def also_kept_in(self) -> Path:
        """The run's own file of records."""
        return self.stored.home / "evaluations.jsonl"

    def sampling(self) -> SamplingRecord:
        """How the samples are generated; whether with compiled networks is only known afterwards."""
        record = sampling_record(self.pipeline, seed=self.config.seed, weights=self.stored.which)
        return record.model_copy(update={"compiled": self.compilation.used})

    def described(self) -> dict[str, Any]:
        """Describes the model and the pipeline."""
        return {"model": self.stored.config.model_dump(mode="json"), "sampling": self.pipeline.record()}

    def pairs(self, metrics: MetricsConfig) -> Pairs:
        """What each sample is compared with, for the paired metrics."""
        return pairs_of(self.pipeline, self.config.seed)

    def class_names(self, of_data: Sequence[str] | None) -> Sequence[str] | None:
        """The class names, of the data set or else of the model."""
        return self.pipeline.wanted.class_names if of_data is None else of_data

    def check(self, metrics: MetricsConfig, class_names: Sequence[str] | None) -> None:
        """Raises UserError if a metric uses classes and the model has another number of them, or if a metric does not
        apply to these samples."""
        pipeline = self.pipeline
        captioned = "caption" in pipeline.request.fields
        refuse_other_samples(metrics, self.shape, pipeline.wanted.classes, class_names, captioned=captioned)

    def words(self, n: int) -> list[str] | None:
        """The requests of the first n samples, in words; None if nothing is requested."""
        return in_words(self._requested(n), self.pipeline.wanted.class_names)

    def boxes(self, n: int) -> list[list[Box]] | None:
        """The requested boxes of the first n samples; None if none are requested."""
        return self._requested(n).get("boxes")

    def maps(self, n: int) -> Tensor | None:
        """The requested maps of classes of the first n samples, uint8 [n, H, W]; None if none are requested."""
        return self._requested(n).get("segmentation")

    def _requested(self, n: int) -> Batch:
        return self.pipeline.request.without_pictures()(range(n), self.config.seed)

    def job(self, out: RunDirectory, identity: Any) -> Job:
        """The tracker's run for an evaluation, in the group of the evaluated run."""
        from difflab.tracking.job import Job

        return Job.measuring("evaluate", self.stored, out, identity)

    def batches(self, kept: Callable[[list[int]], Tensor | None] | None = None) -> Iterator[tuple[Batch, Tensor]]:
        """Yields (the request, including the output of one stage of a cascade that the next enlarges as `low_res`;
        uint8 [b, C, H, W]) of this process; the first process displays its progress.

        kept: returns the images of a batch that was generated before, or None for one still to be generated.

        Raises UserError for samples that are not finite, and if a batch does not fit the memory of the device.
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
    """A store for models on the device of this process."""
    if accelerator != "cuda":
        return StoredModels(accelerator)
    torch.set_float32_matmul_precision("high")
    return StoredModels(torch.device("cuda", torch.cuda.current_device()), torch.channels_last)


def prepare_drawing(
    config: DrawConfig, processes: Processes | None = None, models: StoredModels | None = None
) -> Drawing:
    """Loads the models that are not loaded yet, and builds the pipeline.

    Raises UserError if the configuration requests something that sampling does not support.
    """
    with user_errors():
        refuse_inversion(config.sampler)
    processes = processes or Processes()
    accelerator = resolve_accelerator(config.accelerator)
    autocast = sampling_autocast(config.precision, accelerator)
    models = models or models_on(accelerator)
    compilation = Machine(processes, models).compilation(config.compile, config.n, config.batch_size)
    pipeline, stored = build_pipeline(config, models, autocast=autocast, compilation=compilation)
    shape = pipeline.shape
    require_memory(
        f"batch_size={config.batch_size}: {min(config.batch_size, config.n)} images of {shape} at once",
        min(config.batch_size, -(-config.n // processes.world_size)) * FLOATS_A_PIXEL * 4 * math.prod(shape),
        memory_of(pipeline.device),
        "lower batch_size",
    )
    return Drawing(stored, pipeline, config, processes, files_of(config, models, pipeline.request), compilation)


def draw_name(config: DrawConfig, *also: str) -> str:
    """`ddim-50-seed0-3fa2c1`: a folder name that identifies a sampling run.

    The last part hashes everything that changes the samples, including the file of a run given as a checkpoint, and the
    keys in `also`.
    """
    how = config.model_dump(mode="json", include={*CHANGES_PICTURES, *also})
    if config.compile != "auto":
        how["compile"] = config.compile
    if config.crop != "none":
        how["crop"] = config.crop
    if config.run is not None and Path(config.run).is_file():
        how["checkpoint"] = Path(config.run).name
    digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()
    if config.pipeline.kind != "single":
        return f"{config.pipeline.kind}-seed{config.seed}-{digest[:6]}"
    steps = "all" if config.sampler.steps is None else re.sub(r"\W+", "_", str(config.sampler.steps)).strip("_")
    raw = "-raw" if config.weights == "raw" else ""
    return f"{config.sampler.kind}-{steps}-seed{config.seed}{raw}-{digest[:6]}"
