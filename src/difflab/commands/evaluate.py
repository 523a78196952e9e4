"""`difflab evaluate`: metrics of samples, from a stored run or given, or of an autoencoder's reconstructions.

Each has the record of its protocol.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from difflab.commands.command import Command
from difflab.commands.hydra_app import MULTIRUN
from difflab.commands.points import values_of
from difflab.commands.run_defaults import of_images, parts_of_model, with_defaults_of_run
from difflab.commands.running import run
from difflab.commands.sample import SAMPLING_KEYS
from difflab.config.reconstructions import EvaluateReconstructionsConfig
from difflab.config.sample import EvaluateConfig, EvaluateSamplesConfig
from difflab.errors import UserError

UNFINISHED = "nothing is kept of an unfinished evaluation; the same command starts over"

EVALUATE = Command(
    "evaluate",
    "evaluate",
    EvaluateConfig,
    swept=SAMPLING_KEYS,
    results="evaluations",
    complete=partial(with_defaults_of_run, data=True),
    build="difflab.commands.measurements.samples:of_run",
    report="difflab.commands.sweep_report:report",
    unfinished=UNFINISHED,
)


def with_own_data(argv: Sequence[str]) -> list[str]:
    """The overrides, preceded by `data=shards` if they give `data.path` without choosing a data set."""
    keys = {argument.partition("=")[0].lstrip("+") for argument in argv}
    return ["data=shards", *argv] if "data.path" in keys and "data" not in keys else list(argv)


EVALUATE_SAMPLES = Command(
    "evaluate",
    "evaluate_samples",
    EvaluateSamplesConfig,
    swept=("samples", "n", "split"),
    results="evaluations",
    complete=with_own_data,
    build="difflab.commands.measurements.samples:of_given",
    report="difflab.commands.sweep_report:report",
    unfinished=UNFINISHED,
)


EVALUATE_RECONSTRUCTIONS = Command(
    "evaluate",
    "evaluate_reconstructions",
    EvaluateReconstructionsConfig,
    swept=("run", "posterior", "tiled", "tile", "rounding", "split", "n", "seed", "weights", "precision"),
    results="evaluations",
    complete=of_images("an autoencoder reconstructs images"),
    build="difflab.commands.measurements.reconstructions:of_autoencoder",
    report="difflab.commands.sweep_report:report",
    unfinished=UNFINISHED,
)


def main(argv: Sequence[str]) -> int:
    run(command_of(argv), argv)
    return 0


def command_of(argv: Sequence[str]) -> Command[Any]:
    """The command to run: on samples from a run, on given samples, or on the reconstructions of an autoencoder."""
    given = any(argument.partition("=")[0].lstrip("+") == "samples" for argument in argv if "=" in argument)
    if given:
        refuse_drawing(argv)
        return EVALUATE_SAMPLES
    return EVALUATE_RECONSTRUCTIONS if is_of_autoencoder(argv) else EVALUATE


def is_of_autoencoder(argv: Sequence[str]) -> bool:
    """Whether `run`, or the first of several, reconstructs images. False if there is none, or nothing usable."""
    given = [argument for argument in argv if argument.startswith("run=")]
    if not given:
        return False
    first = (values_of(given[-1]) or [given[-1].partition("=")[2]])[0].strip("'\"")
    if not first:
        return False
    from difflab.pipelines.stored import find_stored

    try:
        return "reconstructions" in find_stored(first, "auto").config.measures
    except UserError:
        # Evaluating samples says what is wrong.
        return False


def refuse_drawing(argv: Sequence[str]) -> None:
    """Raises UserError for sampling options in an evaluation of given samples."""
    drawing = {*parts_of_model(), *EvaluateConfig.model_fields} - {*EvaluateSamplesConfig.model_fields}
    if any(argument.split("=")[0] in MULTIRUN for argument in argv):
        raise UserError("-m is for jobs that sample; give several samples= with commas, as in samples=a.npz,b.npz")
    for argument in argv:
        key = argument.partition("=")[0].lstrip("+~")
        if not argument.startswith("-") and re.split(r"[./@]", key)[0] in drawing:
            raise UserError(
                f"{argument}: samples= evaluates existing images; leave {key} out, or leave samples out "
                "and sample from run=..."
            )
