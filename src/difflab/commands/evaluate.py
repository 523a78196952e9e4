"""`difflab evaluate`: metrics of a stored run's samples, each with the record of its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difflab.commands.hydra_app import run_app
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.config.sample import EvaluateConfig


def main(argv: Sequence[str]) -> int:
    run_app("evaluate", EvaluateConfig, with_defaults_of_run(argv, data=True), evaluate)
    return 0


def evaluate(config: EvaluateConfig, plain: dict[str, Any], overrides: list[str]) -> None:
    """Draw `n` samples, measure them, print and keep the results."""
    import torch

    from difflab.commands.drawing import draw_name, drawing_of
    from difflab.pipelines.evaluating import build_evaluator
    from difflab.tracking.build import build_loggers
    from difflab.tracking.rundir import RunDirectory

    with drawing_of(config) as drawing:
        processes = drawing.processes
        with processes.agreeing():
            evaluator = build_evaluator(
                config.metrics,
                drawing.pipeline,
                n=config.n,
                seed=config.seed,
                weights=config.weights,
                classes=config.classes,
                data=config.data,
                split=config.split,
                rank=processes.rank,
                world_size=processes.world_size,
            )
            evaluator.load_extractors()
        evaluator.prepare()
        home = drawing.stored.home
        out = RunDirectory(config.out or home / "evaluations" / f"{draw_name(config)}-n{config.n}")
        if processes.is_main:
            out.write_records(plain, overrides)
        logged = {**plain, "model": drawing.stored.config.model_dump(mode="json")}
        with build_loggers(config.logger, out, logged) as loggers:
            for indices, _, images in drawing.batches():
                evaluator.update(images, torch.tensor(indices))
            results = evaluator.compute()
            for logger in loggers:
                logger.log_metrics({result.key: result.value for result in results}, step=0)
        if processes.is_main:
            for path in dict.fromkeys([out.evaluations, home / "evaluations.jsonl"]):
                append_lines(path, [result.to_json() for result in results])
            show(results, out.path)


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
