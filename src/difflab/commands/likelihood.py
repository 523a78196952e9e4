"""`difflab likelihood`: bits per dimension of real images under a stored run, with the record of their protocol."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.commands.command import Command
from difflab.commands.run_defaults import of_images
from difflab.commands.running import run
from difflab.config.likelihood import LikelihoodConfig

LIKELIHOOD = Command(
    "likelihood",
    "likelihood",
    LikelihoodConfig,
    swept=("method", "split", "n", "seed", "weights", "precision"),
    results="likelihoods",
    complete=of_images("likelihood is measured on the model alone"),
    build="difflab.commands.measurements.likelihood:likelihood",
    report="difflab.commands.sweep_report:report",
    unfinished="nothing is kept of an unfinished measurement; the same command starts over",
)


def main(argv: Sequence[str]) -> int:
    run(LIKELIHOOD, argv)
    return 0
