from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from callbacks.tiny import Tiny, loader, trainer
from difflab.callbacks.clock import Clock
from difflab.callbacks.ema import EMA
from difflab.callbacks.evaluation import Evaluation
from difflab.callbacks.sample_grid import SampleGrid
from difflab.callbacks.throughput import Throughput
from difflab.pipelines.finite import NonFiniteSamplesError
from difflab.tracking.csv import CSVLogger
from difflab.tracking.csv_rows import read_csv


@dataclass
class Result:
    name: str
    value: float

    def to_json(self) -> str:
        return json.dumps({"name": self.name, "value": self.value, "protocol": {"n": 5}})


class MeanPixel:
    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self.labels: list[Tensor | None] = []

    def update(self, images: Tensor, index: Tensor, *, label: Tensor | None = None, **texts: Any) -> None:
        assert (images[:, 0, 0, 0] == index + 7).all()
        self.images.append(images)
        self.labels.append(label)

    def compute(self) -> list[Result]:
        return [Result("mean@5", torch.cat(self.images).float().mean().item())]


class AnyPixel(MeanPixel):
    def update(self, images: Tensor, index: Tensor, *, label: Tensor | None = None, **texts: Any) -> None:
        self.images.append(images)


class Drawing:
    """Samples that show what state the model was drawn in."""

    def __init__(self, model: Tiny) -> None:
        self.model = model
        self.weights: list[Tensor] = []
        self.calls: list[tuple[list[int], int]] = []

    def __call__(self, indices: list[int], seed: int) -> Tensor:
        assert not self.model.training
        assert not torch.is_grad_enabled()
        self.weights.append(self.model.network.weight.clone())
        self.calls.append((indices, seed))
        return torch.stack([torch.full((3, 4, 4), i + seed, dtype=torch.uint8) for i in indices])


def test_metrics_of_the_averaged_weights_are_logged_and_recorded(tmp_path: Path) -> None:
    model, ema, csv = Tiny(), EMA(0.9), CSVLogger(tmp_path / "metrics.csv")
    draw = Drawing(model)
    path = tmp_path / "evaluations.jsonl"
    evaluation = Evaluation(path, draw, MeanPixel, every_steps=2, n=5, batch_size=2, seed=7)
    trainer(tmp_path, 3, [Clock(), ema, evaluation], logger=csv).fit(model, loader(9))
    assert draw.calls == [([0, 1], 7), ([2, 3], 7), ([4], 7)] * 2
    assert torch.equal(draw.weights[-1], ema.averages["network.weight"])
    assert model.training
    values = [(row["train/step"], float(row["eval/mean@5"])) for row in read_csv(csv.path) if "eval/mean@5" in row]
    assert values == [("2", 9.0), ("3", 9.0)]
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records[1] == {"train_step": 3, "name": "mean@5", "value": 9.0, "protocol": {"n": 5}}


def test_the_evaluator_is_told_what_each_sample_was_asked_to_show(tmp_path: Path) -> None:
    model, judge = Tiny(), MeanPixel()
    evaluation = Evaluation(
        tmp_path / "evaluations.jsonl",
        Drawing(model),
        lambda: judge,
        n=3,
        batch_size=2,
        seed=7,
        request=lambda indices, seed: {"label": torch.tensor([10 * seed + i for i in indices])},
    )
    trainer(tmp_path, 1, [Clock(), evaluation]).fit(model, loader(9))
    assert [label.tolist() for label in judge.labels] == [[70, 71], [72]]


def test_drawing_restores_weights_and_modes(tmp_path: Path) -> None:
    model, ema = Tiny(), EMA(0.5)
    plain, plain_ema = Tiny(), EMA(0.5)
    model.conditioners.append(torch.nn.Dropout().eval())
    grid = SampleGrid(tmp_path, Drawing(model), every_steps=1, n=2, columns=2)
    trainer(tmp_path, 4, [ema, grid]).fit(model, loader(9))
    trainer(tmp_path, 4, [plain_ema]).fit(plain, loader(9))
    assert torch.equal(model.network.weight, plain.network.weight)
    assert torch.equal(ema.averages["network.weight"], plain_ema.averages["network.weight"])


def test_frozen_parts_stay_in_evaluation_mode(tmp_path: Path) -> None:
    model = Tiny()
    frozen = torch.nn.Dropout()
    model.conditioners.append(frozen)

    class Modes(Clock):
        seen: list[bool] = []  # noqa: RUF012

        def on_train_batch_start(self, *args: Any) -> None:
            frozen.eval()

        def on_train_batch_end(self, *args: Any) -> None:
            self.seen.append(frozen.training)

    modes = Modes()
    trainer(tmp_path, 2, [SampleGrid(tmp_path, Drawing(model), every_steps=1, n=1, columns=1), modes]).fit(
        model, loader(9)
    )
    assert modes.seen == [False, False]


def test_grids_are_drawn_with_fixed_seeds_and_once_at_the_end(tmp_path: Path) -> None:
    model = Tiny()
    draw = Drawing(model)
    grid = SampleGrid(tmp_path, draw, every_steps=2, n=3, columns=2, batch_size=2, seed=5, min_side=8)
    trainer(tmp_path, 4, [grid]).fit(model, loader(9))
    assert draw.calls == [([0, 1], 5), ([2], 5)] * 2
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["step-000002.png", "step-000004.png"]
    with Image.open(tmp_path / "step-000004.png") as image:
        assert image.size == (2 + 2 * 10, 2 + 2 * 10)
        assert image.getpixel((2, 12)) == (7, 7, 7)


class Dying(CSVLogger):
    """A logger that ends with the process in the middle of what it was asked for."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if any(key.startswith("eval/") for key in metrics):
            raise KeyboardInterrupt

    def log_image(self, key: str, image: Any) -> None:
        raise KeyboardInterrupt


def test_the_file_that_says_so_is_written_when_all_is_logged(tmp_path: Path) -> None:
    """What lies on disk decides whether the work is made up: it comes last."""
    model = Tiny()
    grid = SampleGrid(tmp_path / "samples", Drawing(model), every_steps=1, n=2, columns=2)
    evaluation = Evaluation(tmp_path / "evaluations.jsonl", Drawing(model), MeanPixel, every_steps=1, n=2, seed=7)
    for callback in (grid, evaluation):
        with pytest.raises(SystemExit):
            trainer(tmp_path, 1, [callback], logger=Dying(tmp_path / "metrics.csv")).fit(model, loader(9))
        assert not callback.finished(1)
        assert callback.owes(1, at_end=False)
    assert not list(tmp_path.glob("samples/*"))
    assert not (tmp_path / "evaluations.jsonl").exists()


def test_pictures_of_an_earlier_start_go_where_a_run_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "step-000009.png").touch()
    (tmp_path / "mine.png").touch()
    grid = SampleGrid(tmp_path, Drawing(Tiny()), every_steps=1, n=2, columns=2)
    grid.forget_after(3)
    assert grid.finished(9), "they come out the same where it goes on"
    grid.forget_after(0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


class NonFinite(Drawing):
    """At the second drawing samples 1 and 4 are not finite, from sampling steps 9 and 3 on."""

    def __call__(self, indices: list[int], seed: int) -> Tensor:
        images = super().__call__(indices, seed)
        steps = [{1: 9, 4: 3}.get(i, 0) if len(self.calls) > self.first_calls else 0 for i in indices]
        if any(steps):
            raise NonFiniteSamplesError("some are not", steps, images / 127.5 - 1)
        return images

    first_calls = 3


def test_an_evaluation_of_samples_that_are_not_finite_gives_no_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, csv = Tiny(), CSVLogger(tmp_path / "metrics.csv")
    path = tmp_path / "evaluations.jsonl"
    evaluation = Evaluation(path, NonFinite(model), AnyPixel, every_steps=2, n=5, batch_size=2, seed=7)
    trainer(tmp_path, 4, [Clock(), evaluation], logger=csv).fit(model, loader(9))
    evaluated = [{k: v for k, v in row.items() if k.startswith(("eval", "train/step"))} for row in read_csv(csv.path)]
    evaluated = [row for row in evaluated if len(row) > 1]
    assert [row["train/step"] for row in evaluated] == ["2", "4"]
    assert evaluated[0].keys() == {"train/step", "eval/mean@5"}
    assert evaluated[1].keys() == {"train/step", "eval/nonfinite_samples"}
    assert float(evaluated[1]["eval/nonfinite_samples"]) == 2
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(record["train_step"], record["name"]) for record in records] == [(2, "mean@5"), (4, "nonfinite-samples@5")]
    assert evaluation.finished(4), "it is not made again"
    said = "note: evaluation at step 4: samples 1, 4 are not finite, 2 of 5, from sampling step 3 on\n"
    assert said in capsys.readouterr().err


def test_a_grid_crosses_out_samples_that_are_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, csv = Tiny(), CSVLogger(tmp_path / "metrics.csv")
    draw = NonFinite(model)
    draw.first_calls = 0
    grid = SampleGrid(tmp_path, draw, every_steps=2, n=5, columns=5, batch_size=2, seed=7, min_side=4)
    trainer(tmp_path, 2, [Clock(), grid], logger=csv).fit(model, loader(9))
    with Image.open(tmp_path / "step-000002.png") as image:
        tiles = [[image.getpixel((2 + 6 * i + x, 2)) for x in (0, 1)] for i in range(5)]
    crossed = [(0, 0, 0), (255, 0, 255)]
    assert [tile == crossed for tile in tiles] == [False, True, False, False, True]
    assert "note: sample grid at step 2: samples 1, 4 are not finite, 2 of 5, from" in capsys.readouterr().err
    assert [row["samples/nonfinite"] for row in read_csv(csv.path) if "samples/nonfinite" in row] == ["2"]


def test_another_protocol_under_one_name_has_a_column_of_its_own(tmp_path: Path) -> None:
    class Hashed(Result):
        def to_json(self) -> str:
            return json.dumps({"name": self.name, "value": self.value, "protocol_hash": next(protocols)})

    class Judge(AnyPixel):
        def compute(self) -> list[Result]:
            return [Hashed("mean@5", 1.0)]

    protocols = iter(["aaaaaaaa11111111", "bbbbbbbb22222222", "aaaaaaaa11111111"])
    path = tmp_path / "evaluations.jsonl"
    # Of somebody who evaluated the same run in another way.
    path.write_text(json.dumps({"name": "mean@5", "value": 3.0, "protocol_hash": "cccccccc"}) + "\n")
    model, csv = Tiny(), CSVLogger(tmp_path / "metrics.csv")
    evaluation = Evaluation(path, Drawing(model), Judge, every_steps=1, n=5, batch_size=5, seed=7)
    trainer(tmp_path, 3, [Clock(), evaluation], logger=csv).fit(model, loader(9))
    logged = [key for row in read_csv(csv.path) for key in row if key.startswith("eval/")]
    assert logged == ["eval/mean@5", "eval/mean@5-bbbbbb", "eval/mean@5"]


class Clockwork:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1000.0])
def test_throughput_counts_training_alone(checkpoint_seconds: float) -> None:
    now, logged = Clockwork(), []
    model, throughput = Tiny(), Throughput(window=4, now=now)

    class Trainer:
        world_size = 1
        loggers = [type("L", (), {"log_metrics": lambda self, metrics, step: logged.append((step, metrics))})()]  # noqa: RUF012

    stub: Any = Trainer()
    throughput.on_train_start(stub, model)
    for step in range(1, 10):
        now.time += 1.0  # waiting for data
        throughput.on_train_batch_start(stub, model, None, 0)
        now.time += 3.0  # training
        model.train_step, model.train_images = step, 8 * step
        throughput.on_train_batch_end(stub, model, None, None, 0)
        with throughput.paused():
            now.time += checkpoint_seconds
        throughput.on_validation_start(stub, model)
        now.time += checkpoint_seconds
        throughput.on_validation_end(stub, model)
    expected = {"throughput/images_per_s": 2.0, "throughput/data_wait_frac": 0.25}
    assert logged == [(5, expected), (9, expected)]


def test_time_off_the_clock_inside_such_time_counts_once() -> None:
    """As a checkpoint that a signal makes while samples are drawn."""
    now, logged = Clockwork(), []
    model, throughput = Tiny(), Throughput(window=1, now=now)
    logger = SimpleNamespace(log_metrics=lambda metrics, step: logged.append(metrics["throughput/images_per_s"]))
    stub: Any = SimpleNamespace(loggers=[logger])
    throughput.on_train_start(stub, model)
    for step in (1, 2):
        throughput.on_train_batch_start(stub, model, None, 0)
        now.time += 2.0
        with throughput.paused():
            now.time += 100.0
            with throughput.paused():
                now.time += 100.0
            now.time += 100.0
        model.train_step, model.train_images = step, 8 * step
        throughput.on_train_batch_end(stub, model, None, None, 0)
    assert logged == [4.0]


def test_only_rows_of_an_evaluation_without_its_records_come_again(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path / "evaluations.jsonl", Drawing(Tiny()), MeanPixel, every_steps=2)
    (tmp_path / "evaluations.jsonl").write_text('{"train_step": 2}\n')
    row = {"train/step": "2", "eval/mean@5": "9.0"}
    assert [evaluation.logs_again(step, row) for step in (2, 4)] == [False, True]
    assert not evaluation.logs_again(4, {"train/step": "4", "train/loss": "9.0"})
