"""A training run end to end: what it computes, what it leaves behind, and how it is told from other runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from command_line import run_difflab, spawn_difflab, tiny_training
from difflab.commands.composing import compose
from difflab.config.train import TrainConfig
from difflab.config.validate import validate
from difflab.data.index import read_index
from difflab.tasks.denoising.module import DenoisingModule
from run_files import checkpoint, differing, exported, find_run, losses, rows

FIRST_LOSSES = [0.362762, 0.663941, 0.895349, 0.825001, 0.772737]
"""Of the tiny network on the tiny shapes: a contract for every change that must not change numbers."""

PICTURES = "callbacks.sample_grid={every_steps: 3, n: 4, columns: 2, batch_size: 4}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_shapes: Path) -> Path:
    """The folder in which one run of six steps was trained."""
    root = tmp_path_factory.mktemp("trained")
    done = run_difflab(tiny_training(tiny_shapes), root)
    assert done.status == 0, done.err
    return root


@pytest.fixture
def again(tiny_shapes: Path) -> Callable[..., Path]:
    """again(root, *overrides): train in that folder; the run's directory."""

    def train(root: Path, *overrides: str) -> Path:
        root.mkdir(exist_ok=True)
        done = run_difflab(tiny_training(tiny_shapes, *overrides), root)
        assert done.status == 0, done.err
        return find_run(root)

    return train


def files_below(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_first_losses_are_what_they_always_were(trained: Path) -> None:
    assert losses(find_run(trained))[:5] == pytest.approx(FIRST_LOSSES, rel=1e-4)


def test_the_log_has_the_losses_by_quartile_the_rate_and_the_gradient_norm(trained: Path) -> None:
    logged = rows(find_run(trained))
    assert [(row["train/step"], row["train/images"]) for row in logged] == [
        (str(n), str(4 * n)) for n in range(1, 1 + 6)
    ]
    assert [float(row["train/lr"]) for row in logged] == pytest.approx([4e-4] + [8e-4] * 5)
    assert all(float(row["train/grad_norm"]) > 0 for row in logged)
    quartiles = {name for row in logged for name in row if name.startswith("train/loss_q")}
    assert quartiles == {f"train/loss_q{q}" for q in range(4)}


def test_a_run_directory_holds_everything_of_the_run(trained: Path) -> None:
    run = find_run(trained)
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert names == {
        "config.yaml",
        "overrides.txt",
        "git.txt",
        "environment.txt",
        "log.txt",
        "metrics.csv",
        "checkpoints/last.ckpt",
        "checkpoints/step-000006.ckpt",
        "weights/ema.safetensors",
        "weights/config.json",
    }


def test_the_weights_that_leave_the_run_are_the_average(trained: Path) -> None:
    run = find_run(trained)
    weights, saved = exported(run), checkpoint(run)
    metadata = weights.pop("metadata")
    assert metadata["train_step"] == "6"
    averages = saved["callbacks"]["EMA"]["averages"]
    assert differing({name: weights[name] for name in averages}, averages) == []
    assert differing(weights, saved["state_dict"]) != []
    assert json.loads((run / "weights" / "config.json").read_text())["experiment"] == "ddpm/shapes32"


def test_the_records_say_what_was_run(trained: Path, tiny_shapes: Path) -> None:
    run, arguments = find_run(trained), tiny_training(tiny_shapes)[1:]
    assert (run / "overrides.txt").read_text().splitlines() == arguments
    stored = yaml.safe_load((run / "config.yaml").read_text())
    asked = validate(TrainConfig, compose("train", arguments)).plain()
    # What the classes are called is the data's to say.
    asked["data"]["class_names"] = list(read_index(tiny_shapes / "index.json").classes or [])
    assert stored == asked
    assert len(stored["data"]["class_names"]) == 6
    assert stored["network"]["skip_scale"] == 1.0, "defaults that the YAML leaves out are stored, too"
    assert (run / "git.txt").read_text() == "not a git checkout\n"
    assert f"torch=={torch.__version__.split('+')[0]}" in (run / "environment.txt").read_text()


def test_the_stored_configuration_trains_the_same_run(trained: Path, tmp_path: Path) -> None:
    from difflab.commands.train import train

    stored = yaml.safe_load((find_run(trained) / "config.yaml").read_text())
    train(validate(TrainConfig, stored), [])
    assert differing(checkpoint(find_run(tmp_path)), checkpoint(find_run(trained))) == []


def test_a_finished_run_says_so_in_one_line_and_is_left_as_it_is(trained: Path, tiny_shapes: Path) -> None:
    before = files_below(trained)
    done = run_difflab(tiny_training(tiny_shapes), trained)
    assert done.status == 0
    assert done.err == ""
    name = find_run(trained).name
    assert done.out == f"already at step 6 of 6: nothing to train, everything is in runs/ddpm/shapes32/{name}\n"
    assert files_below(trained) == before


def test_the_end_of_training_says_where_everything_lies(tiny_shapes: Path, tmp_path: Path) -> None:
    done = run_difflab(tiny_training(tiny_shapes, "name=mine", "trainer.max_steps=1"), tmp_path)
    first, *places = done.out.splitlines()
    assert first == "trained 1 steps (4 images)"
    said = dict(line.split() for line in places)
    assert said == {
        "run": "runs/ddpm/shapes32/mine",
        "weights": "runs/ddpm/shapes32/mine/weights/ema.safetensors",
        "metrics": "runs/ddpm/shapes32/mine/metrics.csv",
    }
    assert all((tmp_path / place).exists() for place in said.values())


def test_a_run_without_an_average_exports_its_raw_weights(tiny_shapes: Path, tmp_path: Path) -> None:
    done = run_difflab(tiny_training(tiny_shapes, "callbacks.ema=null", "trainer.max_steps=1"), tmp_path)
    assert done.status == 0
    assert "weights/raw.safetensors" in done.out
    assert not list(tmp_path.rglob("ema.safetensors"))


def test_the_same_command_goes_on_with_the_same_run_and_another_seed_is_another_one(
    again: Callable[..., Path], tmp_path: Path
) -> None:
    first = again(tmp_path, "trainer.max_steps=1")
    # What does not make the run another one: its length, its log, its readers.
    assert again(tmp_path, "trainer.max_steps=2", "trainer.log_every_steps=2", "data.prefetch=3") == first
    assert checkpoint(first)["difflab"]["train_step"] == 2
    other = again(tmp_path / "other", "trainer.max_steps=1", "seed=1")
    assert other.name != first.name
    assert again(tmp_path / "named", "trainer.max_steps=1", "name=mine").name == "mine"


def test_a_changed_start_keeps_the_records_of_the_one_before(again: Callable[..., Path], tmp_path: Path) -> None:
    again(tmp_path, "trainer.max_steps=1")
    run = again(tmp_path, "trainer.max_steps=2")
    assert yaml.safe_load((run / "config.1.yaml").read_text())["trainer"]["max_steps"] == 1
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 2


def test_a_run_goes_on_from_the_checkpoint_of_another_one(
    trained: Path, tiny_shapes: Path, tmp_path: Path, again: Callable[..., Path]
) -> None:
    path = find_run(trained) / "checkpoints" / "last.ckpt"
    branch = again(tmp_path / "branch", f"resume={path}", "trainer.max_steps=8", "name=branch")
    straight = again(tmp_path / "straight", "trainer.max_steps=8")
    assert differing(checkpoint(branch), checkpoint(straight)) == []
    assert [row["train/step"] for row in rows(branch)] == ["7", "8"]


def test_a_run_starts_from_the_weights_of_another_one(
    trained: Path, again: Callable[..., Path], tmp_path: Path
) -> None:
    source = find_run(trained)
    options = ["init=weights", f"init.from={source}", "optimizer.lr=1e-30", "trainer.max_steps=1"]
    tuned = again(tmp_path / "ema", *options)
    saved = checkpoint(tuned)
    assert saved["difflab"]["train_step"] == 1
    averages = checkpoint(source)["callbacks"]["EMA"]["averages"]
    assert differing({name: saved["state_dict"][name] for name in averages}, averages) == []
    raw = checkpoint(again(tmp_path / "raw", *options, "init.which=raw"))["state_dict"]
    assert differing(raw, checkpoint(source)["state_dict"]) == []


def test_validation_runs_when_it_is_asked_for_and_with_the_average(
    again: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    original = DenoisingModule.on_validation_epoch_start

    def watched(self: DenoisingModule) -> None:
        seen.append(next(self.network.parameters()).detach().clone())
        original(self)

    monkeypatch.setattr(DenoisingModule, "on_validation_epoch_start", watched)
    run = again(tmp_path, "trainer.val_every_steps=3", "trainer.accumulate=2", "name=watched")
    assert [row["train/step"] for row in rows(run) if "val/loss" in row] == ["3", "6"]
    averages = checkpoint(run)["callbacks"]["EMA"]["averages"]
    first = next(name for name in checkpoint(run)["state_dict"] if name in averages)
    assert torch.equal(seen[-1], averages[first])


def test_secrets_stay_out_and_nothing_is_written_outside(
    tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "0123456789abcdef" * 2 + "secretly"
    home, work, cache = tmp_path / "home", tmp_path / "work", tmp_path / "cache"
    for folder in (home, work):
        folder.mkdir()
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setenv("HOME", str(home))
    data = files_below(tiny_shapes.parent)
    done = run_difflab(tiny_training(tiny_shapes, PICTURES, "trainer.val_every_steps=3"), work)
    assert done.status == 0, done.err
    written = files_below(tmp_path)
    run = find_run(work)
    assert [path for path in written if not path.is_relative_to(run) and not path.is_relative_to(cache)] == []
    assert list((run / "samples").iterdir())
    assert [path for path, content in written.items() if secret.encode() in content] == []
    assert files_below(tiny_shapes.parent) == data


@pytest.mark.slow
def test_an_offline_wandb_run_has_no_secret_and_stays_in_the_run_directory(tiny_shapes: Path, tmp_path: Path) -> None:
    secret = "0123456789abcdef" * 2 + "secretly"
    home, work, cache = tmp_path / "home", tmp_path / "work", tmp_path / "cache"
    for folder in (home, work):
        folder.mkdir()
    environment = {"WANDB_API_KEY": secret, "HOME": str(home), "DIFFLAB_CACHE": str(cache), "TMPDIR": str(work)}
    done = spawn_difflab(tiny_training(tiny_shapes, PICTURES, logger="wandb"), work, environment)
    assert done.status == 0, done.err
    written = files_below(tmp_path)
    run = find_run(work)
    assert [path for path in written if not path.is_relative_to(run) and not path.is_relative_to(cache)] == []
    assert list((run / "wandb").glob("offline-run-*"))
    assert [path for path, content in written.items() if secret.encode() in content] == []
