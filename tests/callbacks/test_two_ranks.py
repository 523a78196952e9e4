from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

from difflab.tracking.csv_rows import read_csv
from two_processes import run_two_processes

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have made all scenarios, one after the other, each in a folder of its name."""
    folder = tmp_path_factory.mktemp("two_ranks")
    run_two_processes(SCRIPT, folder)
    return folder


def reports(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes reports of a scenario."""
    files = [folder / f"{rank}.json" for rank in range(2)]
    assert all(file.is_file() for file in files), (folder.parent / "errors.txt").read_text()[-3000:]
    return [json.loads(file.read_text()) for file in files]


def test_ranks_agree_on_the_skipped_step_the_average_and_the_samples(trained: Path) -> None:
    folder = trained / "averages_and_guard"
    first, second = reports(folder)
    assert first["skipped_flags"] == second["skipped_flags"] == [False, False, True, False, False]
    assert first["train_step"] == second["train_step"] == 4
    assert first["weight"] == second["weight"]
    assert first["average"] == second["average"]
    assert first["average"] != first["weight"]
    assert first["power_average"] == second["power_average"] not in (first["average"], first["weight"])
    (snapshot,) = (folder / "power_ema").iterdir()
    assert load_file(snapshot)["network.weight"].tolist() == first["power_average"]
    assert (first["evaluated"], second["evaluated"]) == ([0, 20, 40], [10, 30])
    with Image.open(folder / "samples" / "step-000004.png") as grid:
        assert [grid.getpixel((2 + 4 * i, 2))[0] for i in range(3)] == [0, 10, 20]


def test_a_sample_of_one_rank_that_is_not_finite_is_counted_on_all(trained: Path) -> None:
    folder = trained / "not_finite"
    assert reports(folder) == [{"train_step": 2}] * 2
    lines = (trained / "errors.txt").read_text().splitlines()
    for what in ("evaluation", "sample grid"):
        said = [line for line in lines if line.startswith(f"note: {what} at step 2: sample 3 ")]
        assert len(said) == 1, "not by each process"
    logged = {key: cell for row in read_csv(folder / "metrics.csv") for key, cell in row.items()}
    assert logged["samples/nonfinite"] == "1"
    assert float(logged["eval/nonfinite_samples"]) == 1
    (record,) = (folder / "evaluations.jsonl").read_text().splitlines()
    assert '"metric": "nonfinite-samples"' in record
    with Image.open(folder / "samples" / "step-000002.png") as grid:
        assert [grid.getpixel((2 + 4 * i + 1, 2)) for i in range(5)] != [(10 * i,) * 3 for i in range(5)]
        assert [grid.getpixel((2 + 4 * i, 2))[0] for i in range(5)] == [0, 10, 20, 0, 40]


def test_all_ranks_stop_together(trained: Path) -> None:
    first, second = reports(trained / "too_many")
    assert first == second
    assert "2 times in a row after step 1" in first["stopped"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_all_ranks(trained: Path) -> None:
    first, second = reports(trained / "full_disk")
    assert first == second
    assert "no space left" in first["full"]
    assert first["files"] == ["last.ckpt", "step-000001.ckpt"]


def test_a_signal_to_one_rank_saves_on_all(trained: Path) -> None:
    assert reports(trained / "preempted") == [{"status": 75, "train_step": 4, "saved": 4}] * 2
