"""`difflab evaluate`: metrics of a stored run's samples, each with the record of its protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab import jsonl
from difflab.commands.hydra_app import run_app
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.commands.sampling_sweep import points_of
from difflab.config.sample import EvaluateConfig
from difflab.console import console, say, say_on_stderr

if TYPE_CHECKING:
    from difflab.commands.drawing import Drawing
    from difflab.config.data import DataConfig
    from difflab.metrics.evaluator import Evaluator
    from difflab.metrics.protocol import Result
    from difflab.tracking.rundir import RunDirectory

CHANGES_MEASURES = ("metrics", "data", "split")
"""Keys of an evaluation that change its numbers with the pictures left as they are."""

UNCHANGED_BY = ("logger", "out", "accelerator", "devices", "ranks", "batch_size")
"""Keys that leave the numbers of an evaluation as they are: with other ones it need not be made again."""


def main(argv: Sequence[str]) -> int:
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
    from difflab.commands.limits import require_folder
    from difflab.tracking.wandb_environment import refuse_unusable

    require_folder("out", config.out)
    refuse_unusable(config.logger)
    with drawing_of(config) as drawing:
        try:
            results, out = measure(drawing, config, plain, overrides)
        except KeyboardInterrupt as stop:
            stop.add_note("nothing is kept of an unfinished evaluation; the same command starts over")
            raise
        if drawing.processes.is_main:
            show(results, out.path)


def measure(
    drawing: Drawing, config: EvaluateConfig, plain: dict[str, Any], overrides: list[str]
) -> tuple[list[Result], RunDirectory]:
    """Draw and measure; the records are kept in the folder of this evaluation and in the run's evaluations.jsonl."""
    from difflab.metrics.naming import distinct_names
    from difflab.tracking.build import build_loggers
    from difflab.tracking.job import Job

    processes = drawing.processes
    with processes.agreeing():
        evaluator = evaluator_of(drawing, config, overrides)
    evaluator.prepare()
    out = folder_of(config, drawing.stored.home)
    processes.take(out.path, "is being evaluated into")
    if processes.is_main:
        out.write_records(plain, overrides)
    model = drawing.stored.config.model_dump(mode="json")
    logged = {**plain, "model": model, "sampling": drawing.pipeline.record()}
    job = Job.measuring("evaluate", drawing.stored, out, identity=what_counts(plain))
    with build_loggers(config.logger, out, logged, job) as loggers:
        results = judge(drawing, evaluator)
        records = [json.loads(result.to_json()) for result in results]
        if processes.is_main:
            # A folder that was given may hold numbers of another protocol already.
            names = distinct_names(records, jsonl.read(out.evaluations))
            for logger in loggers:
                numbers = {f"eval/{name}": result.value for name, result in zip(names, results, strict=True)}
                logger.log_metrics(numbers, step=0)
    if processes.is_main:
        for path in dict.fromkeys([out.evaluations, drawing.stored.home / "evaluations.jsonl"]):
            jsonl.append(path, [json.dumps(record) for record in records])
    return results, out


def judge(drawing: Drawing, evaluator: Evaluator) -> list[Result]:
    """Draw all samples, each process its share, and measure them."""
    with drawing.processes.agreeing():
        for asked, images in drawing.batches():
            evaluator.update(images, asked["index"], label=asked.get("label"))
    return evaluator.compute()


def evaluator_of(drawing: Drawing, config: EvaluateConfig, overrides: list[str]) -> Evaluator:
    """What judges the samples, with its extractors loaded; metrics that do not suit the data are left out, and said.

    Raises UserError where they cannot be measured.
    """
    from difflab.commands.limits import main_memory, require_memory
    from difflab.metrics.suiting import without_unsuited
    from difflab.pipelines.evaluating import build_evaluator

    processes, model = drawing.processes, drawing.stored.config
    metrics, left_out = without_unsuited(config.metrics, config.data, overrides, image_size=model.image_size)
    if processes.is_main:
        for line in left_out:
            say_on_stderr(f"note: {line}")
    evaluator = build_evaluator(
        metrics,
        drawing.pipeline,
        n=config.n,
        seed=config.seed,
        weights=drawing.stored.which,
        data=config.data,
        split=config.split,
        class_names=_class_names(config.data),
        rank=processes.rank,
        world_size=processes.world_size,
    )
    evaluator.load_extractors()
    needed = config.n * evaluator.bytes_per_sample(math.prod(model.shape))
    require_memory(f"n={config.n}: what the metrics keep of the samples", needed, main_memory(), "lower n")
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
