"""`difflab evaluate`: metrics of samples, drawn from a stored run or given, each with the record of its protocol."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab import jsonl
from difflab.commands.hydra_app import MULTIRUN, run_app
from difflab.commands.run_defaults import PARTS_OF_MODEL, with_defaults_of_run
from difflab.commands.sampling_sweep import points_of, values_of
from difflab.config.sample import EvaluateConfig, EvaluateSamplesConfig
from difflab.console import console, say, say_on_stderr
from difflab.errors import UserError

if TYPE_CHECKING:
    from difflab.commands.judged import Judged
    from difflab.config.data import DataConfig
    from difflab.metrics.evaluator import Evaluator
    from difflab.metrics.protocol import Result
    from difflab.tracking.rundir import RunDirectory

CHANGES_MEASURES = ("metrics", "data", "split")
"""Keys of an evaluation that change its numbers with the pictures left as they are."""

UNCHANGED_BY = ("logger", "out", "accelerator", "devices", "ranks", "batch_size")
"""Keys that leave the numbers of an evaluation as they are: with other ones it need not be made again."""


def main(argv: Sequence[str]) -> int:
    if judges_given(argv):
        refuse_drawing(argv)
        run_app("evaluate_samples", EvaluateSamplesConfig, argv, evaluate_samples)
        return 0
    points = points_of(argv)
    if points is None:
        run_app("evaluate", EvaluateConfig, with_defaults_of_run(argv, data=True), evaluate)
    else:
        from difflab.commands.evaluate_sweep import evaluate_sweep

        evaluate_sweep(points)
    return 0


def evaluate(config: EvaluateConfig, plain: dict[str, Any], overrides: list[str]) -> None:
    """Draw `n` samples, measure them, print and keep the results."""
    from difflab.commands.drawing import drawing_of
    from difflab.commands.limits import refuse_unwritable

    refuse_unwritable(config.out, config.logger)
    with drawing_of(config) as drawing:
        measure_and_show(drawing, config, folder_of(config, drawing.stored.home), plain, overrides)


def evaluate_samples(config: EvaluateSamplesConfig, plain: dict[str, Any], overrides: list[str]) -> None:
    """Measure pictures that are made already, print and keep the results."""
    from difflab.commands.given_samples import given_samples
    from difflab.commands.limits import refuse_unwritable

    refuse_unwritable(config.out, config.logger)
    with given_samples(config) as samples:
        measure_and_show(samples, config, samples.folder, plain, overrides)


def judges_given(argv: Sequence[str]) -> bool:
    """Whether the pictures are made already."""
    return any(argument.partition("=")[0].lstrip("+") == "samples" for argument in argv if "=" in argument)


def refuse_drawing(argv: Sequence[str]) -> None:
    """Raises UserError for what says how to draw, and for several values, beside pictures that are made already."""
    drawing = {*PARTS_OF_MODEL, *EvaluateConfig.model_fields} - {*EvaluateSamplesConfig.model_fields}
    if any(argument.split("=")[0] in MULTIRUN for argument in argv):
        raise UserError("-m is for jobs that draw; judge several samples= by several commands")
    for argument in argv:
        key = argument.partition("=")[0].lstrip("+~")
        if not argument.startswith("-") and re.split(r"[./@]", key)[0] in drawing:
            raise UserError(
                f"{argument}: samples= judges pictures that are made already; leave {key} out, or leave samples out "
                "and draw from run=..."
            )
        if not argument.startswith("-") and values_of(argument):
            raise UserError(f"{argument}: one value is wanted beside samples=; judge several by several commands")


def measure_and_show(
    samples: Judged,
    config: EvaluateConfig | EvaluateSamplesConfig,
    out: RunDirectory,
    plain: dict[str, Any],
    overrides: list[str],
) -> None:
    """Measure, and print the results. An interruption says that nothing is kept."""
    try:
        results = measure(samples, config, out, plain, overrides)
    except KeyboardInterrupt as stop:
        stop.add_note("nothing is kept of an unfinished evaluation; the same command starts over")
        raise
    if samples.processes.is_main:
        show(results, out.path)


def measure(
    samples: Judged,
    config: EvaluateConfig | EvaluateSamplesConfig,
    out: RunDirectory,
    plain: dict[str, Any],
    overrides: list[str],
) -> list[Result]:
    """Measure; the records are kept in the folder `out` of this evaluation and, of a run, in its evaluations.jsonl."""
    from difflab.metrics.naming import distinct_names
    from difflab.tracking.build import build_loggers

    processes = samples.processes
    with processes.agreeing():
        evaluator = evaluator_of(samples, config, overrides)
    evaluator.prepare()
    processes.take(out.path, "is being evaluated into")
    if processes.is_main:
        out.write_records(plain, overrides)
    job = samples.job(out, what_counts(plain))
    with build_loggers(config.logger, out, {**plain, **samples.described()}, job) as loggers:
        results = judge(samples, evaluator)
        records = [json.loads(result.to_json()) for result in results]
        if processes.is_main:
            # A folder that was given may hold numbers of another protocol already.
            names = distinct_names(records, jsonl.read(out.evaluations))
            for logger in loggers:
                numbers = {f"eval/{name}": result.value for name, result in zip(names, results, strict=True)}
                logger.log_metrics(numbers, step=0)
    if processes.is_main:
        for path in dict.fromkeys([out.evaluations, samples.also_kept_in or out.evaluations]):
            jsonl.append(path, [json.dumps(record) for record in records])
    return results


def judge(samples: Judged, evaluator: Evaluator) -> list[Result]:
    """Get all samples, each process its share, and measure them."""
    with samples.processes.agreeing():
        for asked, images in samples.batches():
            evaluator.update(images, asked["index"], label=asked.get("label"))
    return evaluator.compute()


def evaluator_of(samples: Judged, config: EvaluateConfig | EvaluateSamplesConfig, overrides: list[str]) -> Evaluator:
    """What judges the samples, with its extractors loaded; metrics that do not suit the data are left out, and said.

    Raises UserError where they cannot be measured.
    """
    from difflab.commands.limits import main_memory, require_memory
    from difflab.metrics.suiting import without_unsuited
    from difflab.pipelines.evaluating import evaluator_of_samples

    processes = samples.processes
    metrics, left_out = without_unsuited(config.metrics, config.data, overrides, image_size=samples.shape[-1])
    if processes.is_main:
        for line in left_out:
            say_on_stderr(f"note: {line}")
    class_names = _class_names(config.data)
    samples.check_classes(metrics, class_names)
    evaluator = evaluator_of_samples(
        metrics,
        samples.sampling(),
        n=samples.n,
        device=samples.device,
        data=config.data,
        split=config.split,
        class_names=class_names,
        rank=processes.rank,
        world_size=processes.world_size,
    )
    evaluator.load_extractors()
    needed = samples.n * evaluator.bytes_per_sample(math.prod(samples.shape))
    require_memory(f"n={samples.n}: what the metrics keep of the samples", needed, main_memory(), "lower n")
    return evaluator


def what_counts(plain: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that the numbers of its evaluation depend on."""
    return {key: value for key, value in plain.items() if key not in UNCHANGED_BY}


def _class_names(data: DataConfig | None) -> list[str] | None:
    """What the classes are called, where the data set is there to say it; not every metric needs it to be."""
    from difflab.data.build import class_names_of

    return class_names_of(data) if data is not None and Path(data.path).exists() else None


def folder_of(config: EvaluateConfig, home: Path) -> RunDirectory:
    """Where the records of an evaluation go: each protocol has a folder, and so a W&B run, of its own."""
    from difflab.commands.drawing import draw_name
    from difflab.tracking.rundir import RunDirectory

    name = draw_name(config, *CHANGES_MEASURES)
    return RunDirectory(config.out or home / "evaluations" / f"{name}-n{config.n}")


def show(results: Sequence[Result], out: Path) -> None:
    """A table of the results, their warnings, and where the records lie."""
    from rich.table import Table

    table = Table("metric", "value", "spread", "protocol")
    for row in table_of(results):
        table.add_row(*row)
    console().print(table)
    for warning in dict.fromkeys(warning for result in results for warning in result.warnings):
        say(f"note: {warning}")
    say(f"records in {out}")


def table_of(results: Sequence[Result]) -> list[tuple[str, str, str, str]]:
    """Name, value, spread and the protocol's hash of each."""
    return [
        (one.name, f"{one.value:.4g}", "" if one.spread is None else f"{one.spread:.4g}", one.protocol.hash)
        for one in results
    ]
