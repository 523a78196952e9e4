from __future__ import annotations

from pathlib import Path

import pytest
import torch

from difflab.config.metrics import FDConfig, InceptionScoreConfig, OracleConfig
from difflab.config.sampler import AncestralConfig
from difflab.config.stored import read_train_config
from difflab.errors import UserError
from difflab.pipelines.evaluating import build_evaluator, sampling_record
from tiny_runs import CLASSES

FD = {"fd": FDConfig(extractor="random")}
ALONE = {"oracle": OracleConfig(), "is": InceptionScoreConfig(extractor="random", splits=2)}


def test_the_record_says_how_samples_are_made(pipeline_of) -> None:
    sampler = AncestralConfig(kind="ancestral", steps=7)
    pipeline = pipeline_of("guidance.static_limit=0.5", sampler=sampler, rounding="edm", autocast=torch.bfloat16)
    record = sampling_record(pipeline, seed=3, weights="raw")
    assert record.sampler == {"kind": "ancestral", "steps": 7, "spacing": "sections", "steps_offset": 0}
    assert record.guidance["static_limit"] == 0.5
    assert (record.seed, record.weights, record.rounding) == (3, "raw", "edm")
    assert (record.precision, record.device, record.class_balance) == ("bfloat16", "cpu", "none")
    assert sampling_record(pipeline_of(), seed=3, weights="ema").precision == "float32"


def test_the_record_says_where_classes_come_from(class_pipeline, pipeline_of) -> None:
    drawn = sampling_record(class_pipeline, seed=0, weights="ema")
    assert (drawn.class_balance, drawn.classes) == ("uniform", None)
    given = sampling_record(pipeline_of(*CLASSES, asked={"classes": [1, 2]}), seed=0, weights="ema")
    assert (given.class_balance, given.classes) == ("given", [1, 2])


def test_a_metric_that_compares_needs_data(pipeline_of, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^metrics\.fd compares with a data set and there is none; give data="):
        build_evaluator(FD, pipeline_of(), n=4, seed=0, weights="ema", data=None, split="train")


def test_data_is_opened_only_where_a_metric_compares(pipeline_of, tiny_run: Path, tmp_path: Path) -> None:
    gone = read_train_config(tiny_run / "config.yaml").data.model_copy(update={"path": str(tmp_path / "gone")})
    options = {"n": 4, "seed": 0, "weights": "ema", "split": "train"}
    build_evaluator(ALONE, pipeline_of(), data=gone, **options)
    build_evaluator({"fd": None, **ALONE}, pipeline_of(), data=gone, **options)
    with pytest.raises(UserError, match="gone"):
        build_evaluator({**FD, **ALONE}, pipeline_of(), data=gone, **options)


def test_samples_of_a_pipeline_are_judged(pipeline_of, tiny_run: Path, tmp_path: Path) -> None:
    pipeline = pipeline_of()
    data = read_train_config(tiny_run / "config.yaml").data
    results = []
    for size in (2, 6):
        evaluator = build_evaluator(FD, pipeline, n=6, seed=0, weights="ema", data=data, split="val")
        for start in range(0, 6, size):
            index = list(range(start, start + size))
            evaluator.update(pipeline(index, 0), torch.tensor(index))
        results += evaluator.compute()
    first, second = results
    assert first.name == "fd-random@6"
    assert first.value == pytest.approx(second.value, rel=1e-3)
    assert first.protocol.reference is not None
    assert (first.protocol.reference.n, first.protocol.reference.split) == (12, "val")
    assert first.protocol.hash == second.protocol.hash
