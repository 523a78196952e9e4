"""Two processes draw and judge what one process draws and judges."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from command_line import Done, start_program
from difflab.lock import locked
from difflab.metrics.protocol import Result, compare
from tiny_runs import ON_CPU, done
from warm_python import spawn_warm_difflab

pytestmark = pytest.mark.slow

N = 5
DRAWING = (f"n={N}", "batch_size=1", "trajectory=2", *ON_CPU)
JUDGING = (
    f"n={N}",
    "batch_size=1",
    "metrics.fd.extractor=random",
    "metrics.fd.reference_n=null",
    "metrics.kid=null",
    *ON_CPU,
)


def spawned(root: Path, *arguments: object) -> Done:
    ended = spawn_warm_difflab([str(argument) for argument in arguments], root)
    assert ended.status == 0, ended.err
    return ended


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "sample.json"}


def test_the_pictures_are_the_same(class_run: Path, tmp_path: Path) -> None:
    spawned(tmp_path, "sample", f"run={class_run}", "out=one", *DRAWING)
    ended = spawned(tmp_path, "sample", f"run={class_run}", "out=two", "devices=2", *DRAWING)
    assert ended.out == f"{N} samples of {class_run} in two\n"
    assert ended.err == f"sampling {N} images on 2 devices, batches of each: 3 done\n"
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert {f"{i:06d}.png" for i in range(N)} | {"grid.png", "trajectory.png", "samples.npz"} == set(one)
    archives = [np.load(tmp_path / name / "samples.npz") for name in ("one", "two")]
    for key in ("arr_0", "arr_1"):
        assert np.array_equal(archives[0][key], archives[1][key])
    for files in (one, two):
        files.pop("samples.npz")  # its bytes hold the time
    assert one == two


def test_more_processes_than_samples(tiny_run: Path, tmp_path: Path) -> None:
    spawned(tmp_path, "sample", f"run={tiny_run}", "out=one", "n=1", "devices=2", *ON_CPU)
    assert np.load(tmp_path / "one" / "samples.npz")["arr_0"].shape == (1, 16, 16, 3)


def test_the_numbers_are_the_same_and_written_once(tiny_run: Path, tmp_path: Path) -> None:
    runs = [Path(shutil.copytree(tiny_run, tmp_path / name)) for name in ("one", "two")]
    outputs = [
        spawned(tmp_path, "evaluate", f"run={run}", f"devices={devices}", *JUDGING).out
        for run, devices in zip(runs, (1, 2), strict=True)
    ]
    one, two = (
        [Result.from_json(line) for line in (run / "evaluations.jsonl").read_text().splitlines()] for run in runs
    )
    assert len(one) >= 2
    assert [result.name for result in one] == [result.name for result in two]
    for ours, theirs in zip(one, two, strict=True):
        assert compare(ours, theirs) == pytest.approx(0, abs=1e-4 * abs(ours.value))
    (folder,) = (path for path in (runs[1] / "evaluations").iterdir() if path.is_dir())
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
    assert len(list(folder.glob("config*.yaml"))) == 1
    assert outputs[1].count("records in") == outputs[0].count("records in") == 1


def test_a_mistake_is_said_once(tiny_run: Path, tmp_path: Path) -> None:
    ended = spawn_warm_difflab(["sample", f"run={tiny_run}", "classes=[1]", "out=two", "devices=2", *ON_CPU], tmp_path)
    assert ended.status == 2
    assert ended.err == "difflab sample: this model has no classes: leave classes=null\n"
    assert not (tmp_path / "two").exists()


def test_torchrun_may_start_the_processes(tiny_run: Path, tmp_path: Path) -> None:
    spawned(tmp_path, "sample", f"run={tiny_run}", "out=one", *DRAWING)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = ["-m", "difflab.cli", "sample", f"run={tiny_run}", "out=two", *DRAWING]
    program = start_program([*launcher, *arguments], tmp_path)
    out, err = program.communicate(timeout=300)
    assert program.returncode == 0, err
    assert out == f"{N} samples of {tiny_run} in two\n"
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(one[name] == two[name] for name in one if name.endswith(".png"))


@pytest.mark.parametrize(
    "command", [("sample", "out=two"), ("evaluate", "metrics=lite0", "logger=none", *JUDGING[2:5])]
)
def test_samples_of_one_process_that_are_not_finite_end_both(
    class_run: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    run = Path(shutil.copytree(class_run, tmp_path / "run"))
    weights = run / "weights" / "ema.safetensors"
    state = load_file(weights)
    (embedding,) = [value for key, value in state.items() if key.startswith("conditioners.")]
    embedding[1] = math.nan
    save_file(state, weights)
    asked = ("n=4", "batch_size=1", "classes=[0,1]", "devices=2", *ON_CPU)
    ended = spawn_warm_difflab([command[0], f"run={run}", *command[1:], *asked], tmp_path)
    assert ended.status == 2, ended.err
    assert ended.err.count(f"difflab {command[0]}: sample 1 is not finite from step 1 of 5 on") == 1
    assert ended.err.count("difflab ") == 1, ended.err
    assert not (run / "evaluations.jsonl").exists()
    assert not (tmp_path / "two" / "sample.json").exists()


def test_given_pictures_are_hashed_by_the_first_process_for_all(class_run: Path, tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (N, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "theirs.npz", pictures, np.arange(N))
    measured = ("metrics=none", "+metrics.fd={kind:fd,extractor:random}", "split=val", f"data.path={_data(class_run)}")
    asked = ("evaluate", "samples=theirs.npz", "batch_size=1", "data=shapes32", "data.image_size=16", *measured)
    asked = (*asked, "logger=csv", "accelerator=cpu")
    done(*asked, "out=one")
    spawned(tmp_path, *asked, "out=two", "devices=2")
    one, two = (Result.from_json((tmp_path / out / "evaluations.jsonl").read_text()) for out in ("one", "two"))
    assert one.protocol.sampling == two.protocol.sampling
    assert math.isclose(one.value, two.value, rel_tol=1e-4)


def _data(run: Path) -> str:
    from difflab.config.stored import read_train_config

    return read_train_config(run / "config.yaml").data.path


def test_a_point_that_fails_stops_no_other_on_two_devices(own_run: Path, tmp_path: Path) -> None:
    command = ["sample", f"run={own_run}", "n=2", "batch_size=1", "sampler.steps=2", "seed=0,1,2", *ON_CPU]
    done(*command)
    ledger = own_run / "samples" / "ledger.jsonl"
    places = {entry["point"]: entry["place"] for entry in map(json.loads, ledger.read_text().splitlines())}
    ledger.unlink()
    with locked(own_run / "samples" / places["seed=1"], "is being looked at"):
        ended = spawn_warm_difflab([*command, "devices=2"], tmp_path)
    assert ended.status == 2, ended.err
    assert ended.last_error.startswith("difflab sample: 1 of 3 drawings failed: seed=1: ")
    assert "is being drawn into already" in ended.last_error
    assert ended.out.count("side by side in") == 1
    again = spawn_warm_difflab([*command, "devices=2"], tmp_path)
    assert again.status == 0, again.err
    assert again.err.count("2 of 3 points are done already") == 1
