import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from difflab.metrics.gather import all_true, gather_rows, sum_over_ranks, world_size

SCRIPT = Path(__file__).with_name("one_of_two_ranks.py")


def test_alone_everything_is_itself():
    rows = torch.arange(6).reshape(3, 2)
    assert world_size() == 1
    assert gather_rows(rows) is rows
    assert sum_over_ranks(rows) is rows
    assert all_true(True)
    assert not all_true(False)


def run(folder, world):
    meeting_point = folder / f"meet{world}"
    environment = {**os.environ, "DIFFLAB_CACHE": str(folder / f"cache{world}"), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(rank), str(meeting_point), str(world)], env=environment)
        for rank in range(world)
    ]
    try:
        assert [process.wait(timeout=120) for process in ranks] == [0] * world
    finally:
        for process in ranks:
            process.kill()
    return [json.loads(meeting_point.with_suffix(f".{world}.{rank}.json").read_text()) for rank in range(world)]


@pytest.mark.slow
def test_two_processes_get_what_one_gets(tmp_path):
    (alone,) = run(tmp_path, 1)
    first, second = run(tmp_path, 2)
    assert first["even"] == second["even"]
    assert first["uneven"] == second["uneven"]
    assert first["rows"] == second["rows"] == [[1, 1]]
    assert first["agreed"] == second["agreed"] == [True, False]
    assert alone["even"].keys() >= {"eval/precision-random@25", "eval/oracle-class-accuracy@25"}
    for shared in (first["even"], first["uneven"], alone["uneven"]):
        assert shared.keys() == alone["even"].keys()
        for key, (value, spread, protocol) in alone["even"].items():
            assert shared[key][0] == pytest.approx(value, rel=1e-4, abs=1e-7)
            assert shared[key][1] == (None if spread is None else pytest.approx(spread, rel=1e-3, abs=1e-7))
            assert shared[key][2] == protocol
    assert len(list((tmp_path / "cache2" / "reference").glob("*.safetensors"))) == 1
