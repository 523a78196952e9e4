"""Metrics of samples: of those that a stored model draws, or of pictures that are made already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab.commands.command import Kept, Machine
from difflab.commands.drawing import prepare_drawing
from difflab.commands.limits import main_memory, require_memory
from difflab.commands.measurements.given import class_names_of_data, given_samples
from difflab.commands.measurements.judged import Judged
from difflab.commands.measurements.measuring import Measuring
from difflab.commands.processes import Processes
from difflab.config.sample import EvaluateConfig, EvaluateSamplesConfig
from difflab.console import say_on_stderr
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.protocol import Result
from difflab.metrics.suiting import without_unsuited
from difflab.pipelines.evaluating import evaluator_of_samples

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from difflab.tracking.job import Job
    from difflab.tracking.rundir import RunDirectory


@dataclass(frozen=True)
class SamplesMeasurement:
    """Samples with what judges them (see `difflab.commands.measurements.base.Measurement`)."""

    samples: Judged
    evaluator: Evaluator

    @property
    def processes(self) -> Processes:
        return self.samples.processes

    @property
    def kept(self) -> Kept:
        kept, compared = self.samples.kept, self.evaluator.reference
        files = [*kept.files, *(path for metric in self.evaluator.metrics.values() for path in metric.files)]
        return replace(
            kept, files=files, content=[*kept.content, *([] if compared is None else [compared.content_hash])]
        )

    @property
    def also_kept_in(self) -> Path | None:
        return self.samples.also_kept_in

    def prepare(self) -> None:
        """The reference statistics, which are computed where they are not in the cache."""
        self.evaluator.prepare()

    def results(self) -> list[Result]:
        """Get all samples, each process its share, and judge them."""
        with self.processes.agreeing():
            for batch, images in self.samples.batches():
                self.evaluator.update(images, batch["index"], label=batch.get("label"), low_res=batch.get("low_res"))
        # How they were made is known in full now.
        self.evaluator.sampling = self.samples.sampling()
        return self.evaluator.compute()

    def described(self) -> dict[str, Any]:
        return self.samples.described()

    def job(self, out: RunDirectory, identity: Any) -> Job:
        return self.samples.job(out, identity)

    def write(self, out: RunDirectory, loggers: Sequence[Logger]) -> None:
        """There is nothing but numbers."""

    def remarks(self, results: Sequence[Result]) -> list[str]:
        return [line for metric in self.evaluator.metrics.values() for line in metric.in_words(results)]


def of_run(config: EvaluateConfig, plain: dict[str, Any], overrides: list[str], machine: Machine) -> Measuring:
    """Of `n` samples that are drawn. Raises UserError for what cannot be drawn, or not be measured."""
    with machine.processes.agreeing():
        drawing = prepare_drawing(config, machine.processes, machine.models)
        return Measuring(measurement_of(drawing, config, overrides), config, plain, overrides)


def of_given(config: EvaluateSamplesConfig, plain: dict[str, Any], overrides: list[str], machine: Machine) -> Measuring:
    """Of pictures that are made already. Raises UserError where there are none, or not what can be measured."""
    samples = given_samples(config, machine.processes, machine.models.device)
    with machine.processes.agreeing():
        return Measuring(measurement_of(samples, config, overrides), config, plain, overrides)


def measurement_of(
    samples: Judged, config: EvaluateConfig | EvaluateSamplesConfig, overrides: Sequence[str]
) -> SamplesMeasurement:
    """Samples and what judges them, with its extractors loaded.

    Metrics that do not suit the data are left out, and said. Raises UserError where the others cannot be measured.
    """
    processes = samples.processes
    metrics, left_out = without_unsuited(config.metrics, config.data, overrides, image_size=samples.shape[-1])
    if processes.is_main:
        for line in left_out:
            say_on_stderr(f"note: {line}")
    class_names = samples.class_names(class_names_of_data(config.data))
    samples.check(metrics, class_names)
    evaluator = evaluator_of_samples(
        metrics,
        samples.sampling(),
        n=samples.n,
        device=samples.device,
        data=config.data,
        split=config.split,
        class_names=class_names,
        pairs=samples.pairs(metrics),
        rank=processes.rank,
        world_size=processes.world_size,
    )
    evaluator.load_extractors()
    needed = samples.n * evaluator.bytes_per_sample(math.prod(samples.shape))
    require_memory(f"n={samples.n}: what the metrics keep of the samples", needed, main_memory(), "lower n")
    return SamplesMeasurement(samples, evaluator)
