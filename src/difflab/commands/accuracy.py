"""`difflab accuracy`: the accuracy of a stored classifier on real images, at all noise levels."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.commands.command import Command
from difflab.commands.run_defaults import of_images
from difflab.commands.running import run
from difflab.config.accuracy import AccuracyConfig

ACCURACY = Command(
    "accuracy",
    "accuracy",
    AccuracyConfig,
    swept=("times", "split", "n", "seed", "weights", "precision"),
    results="accuracies",
    complete=of_images("accuracy is measured on the classifier alone"),
    build="difflab.commands.measurements.accuracy:accuracy",
    report="difflab.commands.sweep_report:report",
    unfinished="nothing is kept of an unfinished measurement; the same command starts over",
)


def main(argv: Sequence[str]) -> int:
    run(ACCURACY, argv)
    return 0
