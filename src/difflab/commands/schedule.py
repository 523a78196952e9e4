"""`difflab schedule`: searches for the noise levels of a sampler with few steps, after training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from difflab.commands.command import Command
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.commands.running import run
from difflab.commands.sample import SAMPLING_KEYS
from difflab.config.schedule import SEARCHING, ScheduleConfig

SCHEDULE = Command(
    "schedule",
    "schedule",
    ScheduleConfig,
    swept=(*SAMPLING_KEYS, *SEARCHING),
    results="searches",
    complete=partial(with_defaults_of_run, data=True),
    build="difflab.commands.searching:searching",
    report="difflab.commands.sweep_report:report",
)


def main(argv: Sequence[str]) -> int:
    run(SCHEDULE, argv)
    return 0
