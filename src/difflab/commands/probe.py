"""`difflab probe`: a linear classifier on the features of a stored CLIP, beside its zero-shot accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.commands.command import Command
from difflab.commands.run_defaults import of_images
from difflab.commands.running import run
from difflab.config.probe import ProbeConfig

PROBE = Command(
    "probe",
    "probe",
    ProbeConfig,
    swept=("train_split", "train_n", "templates", "label", "split", "n", "seed", "weights", "precision"),
    results="probes",
    complete=of_images("a probe is trained on the model alone", own=("class_names",)),
    build="difflab.commands.measurements.probe:probe",
    report="difflab.commands.sweep_report:report",
    unfinished="nothing is kept of an unfinished measurement; the same command starts over",
)


def main(argv: Sequence[str]) -> int:
    run(PROBE, [_one_measurement(argument) for argument in argv])
    return 0


def _one_measurement(argument: str) -> str:
    """`shots=1,2,4` is one curve, not three measurements."""
    key, _, value = argument.partition("=")
    several = key == "shots" and "," in value and not value.startswith(("[", "'", '"'))
    return f"shots=[{value}]" if several else argument
