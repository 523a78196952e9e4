"""Evaluations that a training could not make are refused before it begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Done, run_difflab, tiny_training
from difflab.callbacks.context import CallbackContext
from difflab.callbacks.evaluation import Evaluation
from difflab.commands.composing import compose_and_validate
from difflab.commands.training import build_module
from difflab.commands.training_evaluation import build_run_evaluator, sampling_pipeline
from difflab.config.train import TrainConfig
from difflab.data.index import INDEX_NAME
from difflab.tracking.rundir import RunDirectory
from run_files import find_run
from tiny_runs import CLASSES

EVALUATED = ("callbacks=evaluation", "callbacks.sample_grid=null", "callbacks.throughput=null", "metrics=shapes")
SMALL = (
    "callbacks.evaluation.n=4",
    "metrics.fd.extractor=random",
    "metrics.kid.extractor=random",
    "metrics.kid.subset_size=4",
    "trainer.max_steps=1",
    "sampler.steps=1",
)


@pytest.fixture
def train(tiny_shapes: Path, tmp_path: Path) -> Callable[..., Done]:
    def start(*overrides: str, data: Path = tiny_shapes, logger: str = "wandb") -> Done:
        return run_difflab(tiny_training(data, *EVALUATED, *SMALL, *overrides, logger=logger), tmp_path)

    return start


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["metrics.kid.subset_size=100"], "metrics.kid.subset_size=100 exceeds n=4"),
        (["metrics.fd.n=50000"], "metrics.fd is defined at n=50000, not n=4"),
        (["callbacks.evaluation.n=200", "metrics.kid.subset_size=100"], "exceeds the 96 reference images"),
        (["+metrics.pr.kind=precision_recall", "+metrics.pr.k=4"], "metrics.pr.k=4 needs at least n=5 samples"),
        (["+metrics.is.kind=inception_score"], "metrics.is.splits=10 exceeds n=4"),
        (["metrics.fd=null", "metrics.kid=null", "metrics.oracle=null"], "callbacks.evaluation has nothing to measure"),
        (["sampler.steps=51"], "sampler: cannot take 51 steps"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_first_step(
    train: Callable[..., Done], tmp_path: Path, overrides: list[str], message: str
) -> None:
    done = train(*overrides)
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert message in done.err
    assert not list(tmp_path.rglob("wandb")), "W&B was opened"


def test_the_oracle_is_left_out_for_other_data_or_refused(
    train: Callable[..., Done], tiny_shapes: Path, tmp_path: Path
) -> None:
    data = tmp_path / "photos"
    data.mkdir()
    for path in tiny_shapes.iterdir():
        (data / path.name).symlink_to(path)
    index = json.loads((tiny_shapes / INDEX_NAME).read_text()) | {"source": {"name": "folder"}}
    (data / INDEX_NAME).unlink()
    (data / INDEX_NAME).write_text(json.dumps(index))
    refused = train("metrics.oracle.label=mine", data=data)
    assert refused.status == 2
    assert "metrics.oracle judges shapes data alone" in refused.err
    assert not (tmp_path / "runs").exists()
    done = train(data=data, logger="csv")
    assert done.status == 0, done.err
    assert done.err.count("note: metrics.oracle is left out") == 1
    records = (find_run(tmp_path) / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in records] == ["fd-random@4", "kid-random@4"]


def test_classes_that_do_not_fit_the_data_are_refused(train: Callable[..., Done], tmp_path: Path) -> None:
    done = train(*CLASSES, "data.classes=5")
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert "5" in done.err
    assert "6" in done.err
    assert not list(tmp_path.rglob("wandb"))


def test_an_evaluation_of_a_training_has_its_own_seed_and_says_whose_weights(tiny_shapes: Path) -> None:
    def evaluator(*overrides: str):
        arguments = tiny_training(tiny_shapes, *EVALUATED, *SMALL, "seed=1", "callbacks.evaluation.seed=7", *overrides)
        config = compose_and_validate("train", TrainConfig, arguments[1:])[0]
        pipeline = sampling_pipeline(config, build_module(config, "cpu"), "cpu")
        assert pipeline is not None
        options = dict(config.callbacks.chosen_slots)["evaluation"]
        context = CallbackContext(
            config,
            RunDirectory(Path("run")),
            config.model(),
            generate=pipeline,
            make_evaluator=lambda n, seed: build_run_evaluator(config, pipeline, n, seed),
        )
        return Evaluation.from_config(options, context).make_evaluator()

    averaged, raw = evaluator(), evaluator("callbacks.ema=null")
    assert (averaged.sampling.seed, averaged.sampling.weights) == (7, "ema")
    assert raw.sampling.weights == "raw"
    assert averaged.reference is not None
    assert averaged.reference.split == "train"


def test_pictures_of_an_upsampler_are_made_of_images_that_it_was_not_trained_on(tiny_shapes: Path) -> None:
    for split, expected in (("val", "val"), ("null", "train")):
        overrides = ["conditioning=low_res", "conditioning.low_res.size=8", "network.concat_channels=3"]
        arguments = tiny_training(tiny_shapes, *overrides, f"data.val_split={split}", "trainer.val_every_steps=0")
        config = compose_and_validate("train", TrainConfig, arguments[1:])[0]
        pipeline = sampling_pipeline(config, build_module(config, "cpu"), "cpu")
        assert pipeline is not None
        assert pipeline.record()["pipeline"] == {"low_res": f"tiny/{expected}"}


@pytest.mark.parametrize("guidance", ["autoguidance", "classifier"])
def test_a_training_has_no_further_network_beside_it(train: Callable[..., Done], tmp_path: Path, guidance: str) -> None:
    named = "guidance.reference.run=weak" if guidance == "autoguidance" else "guidance.run=judge"
    done = train(f"guidance={guidance}", named)
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert "needs another network: train with guidance=none or classifier_free alone" in done.err


def test_missing_weights_of_a_metric_are_noticed_before_the_first_step(
    train: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("DIFFLAB_OFFLINE", "1")
    done = train("+metrics.fid.kind=fid")
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert "DIFFLAB_OFFLINE is set" in done.err
    assert not list(tmp_path.rglob("wandb"))
