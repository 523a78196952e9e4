"""`difflab sample`: samples of a stored run, as PNGs, a grid and the ADM archive."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.commands.command import Command
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.commands.running import run
from difflab.config.editing import EDITING
from difflab.config.request import GIVEN
from difflab.config.sample import SampleConfig

SAMPLING_KEYS = (
    "guidance",
    "sampler",
    "pipeline",
    "seed",
    "n",
    *GIVEN,
    "crop",
    *EDITING,
    "weights",
    "rounding",
    "precision",
)
"""The keys that may take several values: all sampling options except the run, its data and the devices."""

SAMPLE = Command(
    "sample",
    "sample",
    SampleConfig,
    swept=tuple(key for key in SAMPLING_KEYS if key != "n"),
    results="drawings",
    complete=with_defaults_of_run,
    build="difflab.commands.sampling:sampling",
    report="difflab.commands.side_by_side:report",
)


def main(argv: Sequence[str]) -> int:
    run(SAMPLE, argv)
    return 0
