"""How well a classifier tells the classes of real images, over the noise that they are shown under."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from difflab.commands.command import Machine
from difflab.commands.measurements.images import ImagesMeasurement, log_picture
from difflab.commands.measurements.measuring import Measuring
from difflab.config.accuracy import AccuracyConfig
from difflab.metrics.accuracy import Accuracy, AccuracyTally, mean_and_error
from difflab.metrics.protocol import Result
from difflab.pipelines.accuracy import AccuracyPipeline
from difflab.tracking.accuracy import plot_accuracy, write_accuracy
from difflab.tracking.rundir import RunDirectory
from difflab.types import Batch

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

TOP = 5
"""Where there are more classes, accuracy is also of the five likeliest."""


class AccuracyMeasurement(ImagesMeasurement[AccuracyConfig]):
    """`top1`, `top5` where there are more than five classes, and `cross-entropy`: means over images and times."""

    kind = "accuracy"
    what = "accuracy"
    method = ("times",)

    pipeline: AccuracyPipeline
    accuracy: Accuracy

    def begin(self) -> None:
        self.pipeline = AccuracyPipeline(
            self.model, self.config.times, autocast=self.autocast, compilation=self.compilation
        )
        self.tally = AccuracyTally()
        classes = self.model.config.logits
        assert classes is not None, "what has an accuracy tells classes"
        self.classes, self.top_k = classes, (1, TOP) if classes > TOP else (1,)

    def reads(self) -> Sequence[str]:
        return ("label",)

    def add(self, batch: Batch) -> None:
        self.tally.add(batch["index"], self.pipeline(batch, self.config.seed))

    def found(self) -> list[Result]:
        found = self.accuracy = self.tally.over_ranks(len(self.pipeline.times))
        values = {f"top{k}": found.hits(k) for k in self.top_k} | {"cross-entropy": found.cross_entropy}
        parameters: dict[str, Any] = {"times": self.pipeline.times}
        results: list[Result] = []
        for metric, each in values.items():
            mean, error = mean_and_error(each)
            by_time = {"by_time": each.mean(dim=0).tolist()}
            results.append(self.result(metric, mean, error, len(found.index), parameters, by_time))
        return results

    def write(self, out: RunDirectory, loggers: Sequence[Logger]) -> None:
        """`accuracy.csv`, and `accuracy.svg` and `.png`: over the noise."""
        times, sigmas = self.pipeline.times, self.pipeline.sigmas
        write_accuracy(self.accuracy, self.top_k, times, sigmas, out.path / "accuracy.csv")
        plot_accuracy(self.accuracy, self.top_k, times, out.path / "accuracy.svg")
        log_picture(loggers, "eval/accuracy_by_time", out.path / "accuracy.png")

    def remarks(self, results: Sequence[Result]) -> list[str]:
        least, most = (self.accuracy.hits(1)[:, place].mean().item() for place in (0, -1))
        guessing = f"guessing one of {self.classes} classes gives {1 / self.classes:.3g}"
        return [
            f"means over {len(self.pipeline.times)} times of the schedule: top1 {least:.3g} at the first, "
            f"{most:.3g} at the last; {guessing}"
        ]


def accuracy(config: AccuracyConfig, plain: dict[str, Any], overrides: list[str], machine: Machine) -> Measuring:
    """Of n images. Raises UserError for a model that tells no classes, and for images that are not there."""
    with machine.processes.agreeing():
        return Measuring(AccuracyMeasurement(config, machine), config, plain, overrides)
