"""`difflab retrieval`: how often a stored CLIP finds the caption of an image, and the image of a caption."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.commands.command import Command
from difflab.commands.run_defaults import of_images
from difflab.commands.running import run
from difflab.config.retrieval import RetrievalConfig

RETRIEVAL = Command(
    "retrieval",
    "retrieval",
    RetrievalConfig,
    swept=("distinct", "template", "split", "n", "weights", "precision"),
    results="retrievals",
    complete=of_images("images are compared with captions by the model alone"),
    build="difflab.commands.measurements.retrieval:retrieval",
    report="difflab.commands.sweep_report:report",
    unfinished="nothing is kept of an unfinished measurement; the same command starts over",
)


def main(argv: Sequence[str]) -> int:
    run(RETRIEVAL, argv)
    return 0
