from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from difflab.averaging.snapshots import snapshots_in
from difflab.pipelines.stored import load_stored
from tiny_runs import ON_CPU, TRAINING, done, mistake


@pytest.fixture(scope="module")
def power_run(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with snapshots of three lengths at steps 2, 4 and 6. To be read only."""
    root = tmp_path_factory.mktemp("power")
    asked = ("callbacks=power_ema", "callbacks.power_ema.sigma_rel=[0.05,0.1,0.15]", "trainer.max_steps=6")
    every = "callbacks.power_ema.snapshot_every_steps=2"
    done("train", *TRAINING, *asked, every, f"data.path={tiny_shapes}", f"output_root={root}", "name=power")
    return root / "ddpm" / "shapes32" / "power"


@pytest.fixture
def two_lengths(power_run: Path, tmp_path: Path) -> Path:
    """A copy of the run without the snapshots of length 0.1."""
    run = Path(shutil.copytree(power_run, tmp_path / "run"))
    for path in (run / "weights" / "power_ema").glob("sigma_rel-0.100-*"):
        path.unlink()
    return run


def test_training_leaves_snapshots_beside_the_usual_average(power_run: Path) -> None:
    profiles = [snapshot.profile for snapshot in snapshots_in(power_run / "weights" / "power_ema")]
    assert [(p.step, p.sigma_rel) for p in profiles] == [(s, n) for s in (2, 4, 6) for n in (0.05, 0.1, 0.15)]
    assert (power_run / "weights" / "ema.safetensors").is_file()


def test_a_length_between_is_made_and_drawn_from(two_lengths: Path, power_run: Path, tiny_shapes: Path) -> None:
    ended = done("weights", "ema", two_lengths, "--sigma-rel", "0.1", "--out", "made")
    described = (
        r"made: sigma_rel 0\.1 \(gamma 6\.937\) at step 6, made of 6 snapshots "
        r"\(sigma_rel 0\.05, 0\.15; steps 2 to 6\), profile error \d\.\d\d%"
    )
    assert re.search(described, ended.out)
    assert "try `difflab sample run=made n=4`" in ended.out
    state = load_stored("made")[0].as_module().state_dict()
    tracked = load_file(power_run / "weights" / "power_ema" / "sigma_rel-0.100-step-000006.safetensors")
    raw = load_stored(power_run, "raw")[0].as_module().state_dict()
    error = sum((state[name] - tracked[name]).double().square().sum() for name in tracked).sqrt()
    moved = sum((raw[name] - tracked[name]).double().square().sum() for name in tracked).sqrt()
    # In six steps the weights move in jumps, which profiles over continuous time see only roughly.
    assert 0 < error < 0.25 * moved
    facts = json.loads(Path("made/config.json").read_text())["difflab"]["made_of"]
    assert facts["run"] == str(two_lengths)
    assert len(facts["power_ema"]["snapshots"]) == 6
    assert sum(facts["power_ema"]["snapshots"].values()) == pytest.approx(1)
    done("sample", "run=made", "n=1", "sampler.steps=2", *ON_CPU)
    judging = ("data=shapes32", f"data.path={tiny_shapes}", "data.image_size=16", "metrics.fd.extractor=random")
    done("evaluate", "run=made", "n=8", "sampler.steps=2", "metrics=lite0", "metrics.kid=null", *judging, *ON_CPU)


def test_several_lengths_are_several_folders_and_tracked_ones_come_back_exactly(power_run: Path) -> None:
    ended = done("weights", "ema", power_run, "--sigma-rel", "0.15,0.05,0.12", "--step", "4", "--out", "made")
    assert sorted(path.name for path in Path("made").iterdir()) == [f"sigma_rel-0.{n}" for n in ("050", "120", "150")]
    first, *_ = ended.out.splitlines()
    assert first == "made/sigma_rel-0.050: sigma_rel 0.05 (gamma 16.97) at step 4, tracked in training"
    snapshot = load_file(power_run / "weights" / "power_ema" / "sigma_rel-0.150-step-000004.safetensors")
    made = load_file("made/sigma_rel-0.150/model.safetensors")
    assert made.keys() == snapshot.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in snapshot.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sigma-rel", "0.3"], "--sigma-rel: sigma_rel=0.3 must lie between 0 and 0.2887"),
        (["--sigma-rel", "0.05,0"], "--sigma-rel: sigma_rel=0 must lie between 0 and 0.2887"),
        (["--sigma-rel", "0.05,long"], "--sigma-rel 0.05,long: 'long' is not a number; write 0.075 or 0.05,0.1,0.15"),
        (["--sigma-rel", "0.07", "--step", "1"], "step 1 has no snapshot: the first is of step 2, the last of 6"),
        (["--sigma-rel", "0.07", "--step", "5"], "take one near it, as 4 or 6"),
        ([], "Missing option '--sigma-rel'"),
    ],
)
def test_mistakes_are_one_line(power_run: Path, options: list[str], message: str) -> None:
    assert message in mistake("weights", "ema", power_run, "--out", "made", *options)
    assert not Path("made").exists()


def test_runs_that_have_no_snapshots_are_told_how_to_get_them(tiny_run: Path) -> None:
    line = mistake("weights", "ema", tiny_run, "--sigma-rel", "0.1", "--out", "made")
    assert "has no snapshots in weights/power_ema: train with callbacks=power_ema" in line
    assert "is not a run directory" in mistake("weights", "ema", "gone", "--sigma-rel", "0.1", "--out", "made")


def test_a_snapshot_of_another_network_is_named(two_lengths: Path) -> None:
    path = two_lengths / "weights" / "power_ema" / "sigma_rel-0.050-step-000002.safetensors"
    state = load_file(path)
    name = next(iter(state))
    save_file({**state, name: state[name][:1]}, path, metadata={"not_averaged": "[]"})
    line = mistake("weights", "ema", two_lengths, "--sigma-rel", "0.1", "--out", "made")
    assert "sigma_rel-0.050-step-000002.safetensors is of another network than the run's" in line
    assert not Path("made").exists()


def test_power_ema_is_chosen_beside_other_callbacks(tiny_shapes: Path, tmp_path: Path) -> None:
    asked = ("callbacks.power_ema={}", "trainer.max_steps=1", f"data.path={tiny_shapes}", f"output_root={tmp_path}")
    done("train", *TRAINING, *asked, "name=late")
    snapshots = snapshots_in(tmp_path / "ddpm" / "shapes32" / "late" / "weights" / "power_ema")
    assert [(s.profile.step, s.profile.sigma_rel) for s in snapshots] == [(1, 0.05), (1, 0.1)]
