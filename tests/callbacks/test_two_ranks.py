from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

from difflab.tracking.csv_rows import read_csv

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("two_ranks.py")


def run(scenario: str, folder: Path) -> list[dict[str, Any]]:
    """What each of two processes reports."""
    said(scenario, folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def said(scenario: str, folder: Path) -> list[str]:
    """The lines that the two processes wrote on standard error."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    # Behind the tests the sources that this process was told to take, if any.
    paths = os.pathsep.join(filter(None, [str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(SCRIPT), scenario, str(folder)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr.splitlines()


def test_ranks_agree_on_the_skipped_step_the_average_and_the_samples(tmp_path: Path) -> None:
    first, second = run("averages_and_guard", tmp_path)
    assert first["skipped_flags"] == second["skipped_flags"] == [False, False, True, False, False]
    assert first["train_step"] == second["train_step"] == 4
    assert first["weight"] == second["weight"]
    assert first["average"] == second["average"]
    assert first["average"] != first["weight"]
    assert first["power_average"] == second["power_average"] not in (first["average"], first["weight"])
    (snapshot,) = (tmp_path / "power_ema").iterdir()
    assert load_file(snapshot)["network.weight"].tolist() == first["power_average"]
    assert (first["evaluated"], second["evaluated"]) == ([0, 20, 40], [10, 30])
    with Image.open(tmp_path / "samples" / "step-000004.png") as grid:
        assert [grid.getpixel((2 + 4 * i, 2))[0] for i in range(3)] == [0, 10, 20]


def test_a_sample_of_one_rank_that_is_not_finite_is_counted_on_all(tmp_path: Path) -> None:
    lines = said("not_finite", tmp_path)
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [{"train_step": 2}] * 2
    for what in ("evaluation", "sample grid"):
        assert sum(line.startswith(f"note: {what} at step 2: sample 3 ") for line in lines) == 1, "not by each process"
    logged = {key: cell for row in read_csv(tmp_path / "metrics.csv") for key, cell in row.items()}
    assert logged["samples/nonfinite"] == "1"
    assert float(logged["eval/nonfinite_samples"]) == 1
    (record,) = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    assert '"metric": "nonfinite-samples"' in record
    with Image.open(tmp_path / "samples" / "step-000002.png") as grid:
        assert [grid.getpixel((2 + 4 * i + 1, 2)) for i in range(5)] != [(10 * i,) * 3 for i in range(5)]
        assert [grid.getpixel((2 + 4 * i, 2))[0] for i in range(5)] == [0, 10, 20, 0, 40]


def test_all_ranks_stop_together(tmp_path: Path) -> None:
    first, second = run("too_many", tmp_path)
    assert first == second
    assert "2 times in a row after step 1" in first["stopped"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_all_ranks(tmp_path: Path) -> None:
    first, second = run("full_disk", tmp_path)
    assert first == second
    assert "no space left" in first["full"]
    assert first["files"] == ["last.ckpt", "step-000001.ckpt"]


def test_a_signal_to_one_rank_saves_on_all(tmp_path: Path) -> None:
    assert run("preempted", tmp_path) == [{"status": 75, "train_step": 4, "saved": 4}] * 2
