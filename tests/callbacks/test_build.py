from __future__ import annotations

from pathlib import Path
from typing import Any

from difflab.callbacks.build import build_callbacks, owed_at_end
from difflab.callbacks.context import CallbackContext
from difflab.commands.composing import compose_and_validate
from difflab.config.train import TrainConfig
from difflab.tracking.rundir import RunDirectory

EVERYTHING = [
    "experiment=ddpm/shapes32",
    "trainer.max_steps=6",
    "trainer.val_every_steps=4",
    "callbacks.checkpoint.every_steps=2",
    "callbacks.power_ema={sigma_rel: [0.1], snapshot_every_steps: 100}",
    "callbacks.evaluation={every_steps: null, n: 2, batch_size: 2}",
]


def config_of(*overrides: str) -> TrainConfig:
    return compose_and_validate("train", TrainConfig, [*EVERYTHING, *overrides])[0]


def draw(*_: Any) -> Any:
    raise AssertionError("nothing is drawn here")


def test_the_guard_comes_first_then_the_averages_and_what_saves_before_what_may_fail(tmp_path: Path) -> None:
    config = config_of()
    context = CallbackContext(config, RunDirectory(tmp_path), config.model(), generate=draw, make_evaluator=draw)
    built = build_callbacks(context)
    assert [type(callback).__name__ for callback in built] == [
        "Clock",
        "NonFiniteGuard",
        "EMA",
        "PowerEMA",
        "TrainingLog",
        "Throughput",
        "Progress",
        "WeightsExport",
        "Checkpoint",
        "SampleGrid",
        "Evaluation",
        "Validation",
        "Preemption",
    ]


def test_a_run_owes_all_that_is_due_at_its_end_and_can_be_seen(tmp_path: Path) -> None:
    def owed(*overrides: str) -> list[str]:
        config = config_of(*overrides)
        return owed_at_end(config, RunDirectory(tmp_path), config.model(), 6)

    assert owed() == ["PowerEMA", "WeightsExport", "SampleGrid", "Evaluation", "Validation"]
    assert "Validation" not in owed("logger.csv=false"), "nothing would ever say that it was made"
    assert "Validation" not in owed("trainer.val_every_steps=0")
