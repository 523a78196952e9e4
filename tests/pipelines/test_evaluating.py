from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from difflab.config.stored import read_train_config
from difflab.diffusion.samplers.config import AncestralConfig
from difflab.errors import UserError
from difflab.metrics.config import FDConfig, InceptionScoreConfig, KIDConfig, OracleConfig
from difflab.pipelines.evaluating import REFERENCE_BATCH, build_evaluator, reference_of, sampling_record
from pipelines.conftest import UPSAMPLER
from tiny_runs import CLASSES

FD = {"fd": FDConfig(extractor="random")}
ALONE = {"oracle": OracleConfig(), "is": InceptionScoreConfig(extractor="random", splits=2)}


def test_the_record_says_how_samples_are_made(pipeline_of) -> None:
    sampler = AncestralConfig(kind="ancestral", steps=7)
    pipeline = pipeline_of("guidance.static_limit=0.5", sampler=sampler, rounding="edm", autocast=torch.bfloat16)
    record = sampling_record(pipeline, seed=3, weights="raw")
    strided = {"spacing": "sections", "steps_offset": 0, "sigmas": None}
    assert record.sampler == {"kind": "ancestral", "steps": 7, **strided}
    assert record.guidance["static_limit"] == 0.5
    assert (record.seed, record.weights, record.rounding) == (3, "raw", "edm")
    assert (record.precision, record.device, record.class_balance) == ("bfloat16", "cpu", "none")
    assert sampling_record(pipeline_of(), seed=3, weights="ema").precision == "float32"


def test_the_record_says_where_classes_come_from(class_pipeline, pipeline_of) -> None:
    drawn = sampling_record(class_pipeline, seed=0, weights="ema")
    assert (drawn.class_balance, drawn.classes) == ("uniform", None)
    given = sampling_record(pipeline_of(*CLASSES, asked={"classes": [1, 2]}), seed=0, weights="ema")
    assert (given.class_balance, given.classes) == ("given", [1, 2])


def test_classes_of_images_to_enlarge_are_the_datas_where_they_are_known(pipeline_of, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "named.npz", arr_0=pixels, arr_1=np.array([4, 0, 2]))
    np.savez(tmp_path / "unnamed.npz", arr_0=pixels)
    balances = []
    for name in ("named.npz", "unnamed.npz"):
        asked = {"low_res": str(tmp_path / name)}
        pipeline = pipeline_of(*UPSAMPLER, "conditioning=class_low_res", asked=asked)
        balances.append(sampling_record(pipeline, seed=0, weights="ema").class_balance)
    # Where the archive names none, they are drawn from the seed.
    assert balances == ["data", "uniform"]
    given = pipeline_of(*UPSAMPLER, "conditioning=class_low_res", asked={**asked, "classes": [1]})
    assert sampling_record(given, seed=0, weights="ema").class_balance == "given"


@pytest.mark.parametrize("names", [["a"] * 5, ["a"] * 7])
def test_the_oracle_needs_as_many_classes_as_samples_show(class_pipeline, names: list[str]) -> None:
    options = {"n": 4, "seed": 0, "weights": "ema", "data": None, "split": "train"}
    with pytest.raises(
        UserError, match=rf"metrics\.oracle: the samples have 6 classes and the data set names {len(names)}"
    ):
        build_evaluator({"oracle": OracleConfig()}, class_pipeline, class_names=names, **options)
    build_evaluator({"oracle": OracleConfig()}, class_pipeline, class_names=["a"] * 6, **options)


def test_a_reference_cannot_have_more_images_than_the_data(pipeline_of, tiny_run: Path) -> None:
    data = read_train_config(tiny_run / "config.yaml").data

    def evaluator(subset_size: int, reference_n: int | None, **ranks: int):
        kid = KIDConfig(extractor="random", subset_size=subset_size, reference_n=reference_n)
        options = {"n": 20, "seed": 0, "weights": "ema", "data": data, "split": "val"}
        return build_evaluator({"kid": kid}, pipeline_of(), **options, **ranks)

    evaluator(11, 11)
    for reference_n in (None, 100):
        evaluator(12, reference_n)
        with pytest.raises(UserError, match=r"subset_size=13 exceeds the 12 reference images"):
            evaluator(13, reference_n)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_the_reference_out(pipeline_of, tiny_run: Path, world_size: int) -> None:
    data = read_train_config(tiny_run / "config.yaml").data
    seen: list[int] = []
    for rank in range(world_size):
        reference = reference_of(FD, 4, data, "val", rank, world_size)
        assert reference is not None
        for batch in reference.batches(None):
            assert len(batch["weight"]) == REFERENCE_BATCH
            seen += batch["index"][batch["weight"] > 0].tolist()
    assert sorted(seen) == list(range(12))


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
