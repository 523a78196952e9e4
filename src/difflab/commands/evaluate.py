"""`difflab evaluate`: metrics of a stored run's samples, each with the record of its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab.commands.hydra_app import run_app
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.commands.sampling_sweep import points_of
from difflab.config.sample import EvaluateConfig

if TYPE_CHECKING:
    from difflab.commands.drawing import Drawing
    from difflab.config.data import DataConfig
    from difflab.metrics.protocol import Result
    from difflab.tracking.rundir import RunDirectory


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

    with drawing_of(config) as drawing:
        results, out = measure(drawing, config, plain, overrides)
        if drawing.processes.is_main:
            show(results, out.path)


def measure(
    drawing: Drawing, config: EvaluateConfig, plain: dict[str, Any], overrides: list[str]
) -> tuple[list[Result], RunDirectory]:
    """Draw and measure; the records are kept in the folder of this evaluation and in the run's evaluations.jsonl."""
    import torch

    from difflab.pipelines.evaluating import build_evaluator
    from difflab.tracking.build import build_loggers

    processes = drawing.processes
    with processes.agreeing():
        evaluator = build_evaluator(
            config.metrics,
            drawing.pipeline,
            n=config.n,
            seed=config.seed,
            weights=drawing.stored.which,
            classes=config.classes,
            data=config.data,
            split=config.split,
            class_names=_class_names(config.data),
            rank=processes.rank,
            world_size=processes.world_size,
        )
        evaluator.load_extractors()
    evaluator.prepare()
    out = folder_of(config, drawing.stored.home)
    processes.take(out.path, "is being evaluated into")
    if processes.is_main:
        out.write_records(plain, overrides)
    model = drawing.stored.config.model_dump(mode="json")
    logged = {**plain, "model": model, "sampling": drawing.pipeline.record()}
    with build_loggers(config.logger, out, logged) as loggers:
        for indices, classes, images in drawing.batches():
            label = None if classes is None else torch.tensor(classes)
            evaluator.update(images, torch.tensor(indices), label=label)
        results = evaluator.compute()
        for logger in loggers:
            logger.log_metrics({result.key: result.value for result in results}, step=0)
    if processes.is_main:
        for path in dict.fromkeys([out.evaluations, drawing.stored.home / "evaluations.jsonl"]):
            append_lines(path, [result.to_json() for result in results])
    return results, out


def _class_names(data: DataConfig | None) -> list[str] | None:
    """What the classes are called, where the data set is there to say it; not every metric needs it to be."""
    from difflab.data.build import class_names_of

    return class_names_of(data) if data is not None and Path(data.path).exists() else None


def folder_of(config: EvaluateConfig, home: Path) -> RunDirectory:
    """Where the records of an evaluation go."""
    from difflab.commands.drawing import draw_name
    from difflab.tracking.rundir import RunDirectory

    return RunDirectory(config.out or home / "evaluations" / f"{draw_name(config)}-n{config.n}")


def append_lines(path: Path, lines: list[str]) -> None:
    """Add lines to a file of records."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def show(results: Sequence[Any], out: Path) -> None:
    """A table of the results, their warnings, and where the records lie."""
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "value", "spread", "protocol")
    for result in results:
        spread = "" if result.spread is None else f"{result.spread:.4g}"
        table.add_row(result.name, f"{result.value:.4g}", spread, result.protocol.hash)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for warning in dict.fromkeys(warning for result in results for warning in result.warnings):
        console.print(f"note: {warning}")
    console.print(f"records in {out}")
