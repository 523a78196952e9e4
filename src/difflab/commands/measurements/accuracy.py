"""The accuracy of a classifier on real images, clean or by noise level."""

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
from difflab.tracking.accuracy import plot_accuracy, write_accuracy, write_accuracy_by_class
from difflab.tracking.rundir import RunDirectory
from difflab.types import Batch

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

TOP = 5
"""With more classes than this, top-5 accuracy is measured as well."""


class AccuracyMeasurement(ImagesMeasurement[AccuracyConfig]):
    """`top1`, `top5` if there are more than five classes, and `cross-entropy`: means over images and times."""

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
        assert classes is not None, "the model is a classifier"
        self.classes, self.top_k = classes, (1, TOP) if classes > TOP else (1,)

    def reads(self) -> Sequence[str]:
        return ("label",)

    def add(self, batch: Batch) -> None:
        self.tally.add(batch["index"], self.pipeline(batch, self.config.seed), batch["label"])

    def found(self) -> list[Result]:
        found = self.accuracy = self.tally.over_ranks(self.pipeline.views)
        values = {f"top{k}": found.hits(k) for k in self.top_k} | {"cross-entropy": found.cross_entropy}
        times = self.pipeline.times
        parameters: dict[str, Any] = {} if times is None else {"times": times}
        results: list[Result] = []
        for metric, each in values.items():
            mean, error = mean_and_error(each)
            details = {} if times is None else {"by_time": each.mean(dim=0).tolist()}
            results.append(self.result(metric, mean, error, len(found.index), parameters, details))
        return results

    def write(self, out: RunDirectory, loggers: Sequence[Logger]) -> None:
        """Writes `accuracy.csv`: by class for clean images, else by noise level, also as `accuracy.svg` and `.png`."""
        times, sigmas = self.pipeline.times, self.pipeline.sigmas
        if times is None:
            names = self.model.config.class_names
            write_accuracy_by_class(self.accuracy, self.top_k, names, out.path / "accuracy.csv")
            return
        write_accuracy(self.accuracy, self.top_k, times, sigmas, out.path / "accuracy.csv")
        plot_accuracy(self.accuracy, self.top_k, times, out.path / "accuracy.svg")
        log_picture(loggers, "eval/accuracy_by_time", out.path / "accuracy.png")

    def remarks(self, results: Sequence[Result]) -> list[str]:
        guessing = f"guessing one of {self.classes} classes gives {1 / self.classes:.3g}"
        if self.pipeline.times is None:
            return [f"on clean images, each classified once; {guessing}"]
        least, most = (self.accuracy.hits(1)[:, place].mean().item() for place in (0, -1))
        return [
            f"means over {len(self.pipeline.times)} times of the schedule: top1 {least:.3g} at the first, "
            f"{most:.3g} at the last; {guessing}"
        ]


def accuracy(config: AccuracyConfig, plain: dict[str, Any], overrides: list[str], machine: Machine) -> Measuring:
    """The accuracy on n images. Raises UserError if the model is not a classifier, or images are missing."""
    with machine.processes.agreeing():
        return Measuring(AccuracyMeasurement(config, machine), config, plain, overrides)
