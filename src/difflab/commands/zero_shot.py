"""`difflab zero-shot`: how well a stored CLIP tells the classes of real images from prompts alone."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.commands.command import Command
from difflab.commands.run_defaults import of_images
from difflab.commands.running import run
from difflab.config.zero_shot import ZeroShotConfig

ZERO_SHOT = Command(
    "zero-shot",
    "zero_shot",
    ZeroShotConfig,
    swept=(
        *("templates", "label", "corruption", "severity", "attack", "epsilon", "steps"),
        *("split", "n", "seed", "weights", "precision"),
    ),
    results="classifications",
    complete=of_images("images are classified by the model alone", own=("class_names",)),
    build="difflab.commands.measurements.zero_shot:zero_shot",
    report="difflab.commands.sweep_report:report",
    unfinished="nothing is kept of an unfinished measurement; the same command starts over",
)


def main(argv: Sequence[str]) -> int:
    run(ZERO_SHOT, argv)
    return 0
