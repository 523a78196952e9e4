"""Training a noisy classifier end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import Done, run_difflab, tiny_training
from run_files import checkpoint, differing, find_run, losses, rows
from warm_python import spawn_warm_difflab

EXPERIMENT = "adm/shapes32_classifier"
CLASSIFIER = [
    f"experiment={EXPERIMENT}",
    "data.crop=none",
    "network=adm_classifier_64",
    # A new choice of the groups brings back what `tiny_training` had made small.
    "network.base_channels=16",
    "network.channel_mult=[1,2]",
    "network.blocks_per_level=1",
    "network.attention_resolutions=[8]",
    "network.attention_head_channels=8",
    "network.norm_groups=8",
    "network.adaptive_norm=true",
    "callbacks.throughput=null",
    "diffusion=ddpm",
    "diffusion.timesteps=50",
    "optimizer.weight_decay=0.05",
    "optimizer.schedule.decay=linear",
    "trainer.val_every_steps=3",
]
QUARTILES = [f"_q{q}" for q in range(4)]


def classifier_training(data: Path, *overrides: str) -> list[str]:
    """Arguments of `difflab train` for a tiny classifier of the six shapes."""
    left_out = ("experiment=", "callbacks.", "network.attention_heads")
    kept = [o for o in tiny_training(data) if not o.startswith(left_out)]
    return [*kept, *CLASSIFIER, *overrides]


def train(data: Path, root: Path, *overrides: str) -> Done:
    return run_difflab(classifier_training(data, *overrides), root)


def trained(data: Path, root: Path, *overrides: str) -> Path:
    root.mkdir(exist_ok=True)
    done = train(data, root, *overrides)
    assert done.status == 0, done.err
    return find_run(root, EXPERIMENT)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_shapes: Path) -> Path:
    """A run of six steps."""
    return trained(tiny_shapes, tmp_path_factory.mktemp("classifier"))


def test_losses_and_accuracies_are_logged_by_quartile_in_training_and_validation(run: Path) -> None:
    logged = rows(run)
    assert {"train/loss", "train/top1", "train/top5", "train/lr", "train/grad_norm"} <= logged[0].keys()
    names = {name for row in logged for name in row}
    parts = {f"train/{name}{q}" for name in ("loss", "top1", "top5") for q in ["", *QUARTILES]}
    assert parts <= names
    validated = [row for row in logged if "val/loss" in row]
    assert [row["train/step"] for row in validated] == ["3", "6"]
    assert {name.replace("train", "val") for name in parts} <= {name for row in validated for name in row}
    assert all(0 <= float(row["train/top1"]) <= float(row["train/top5"]) <= 1 for row in logged if "train/top1" in row)


def test_the_weights_that_leave_the_run_are_the_raw_ones_of_a_classifier(run: Path) -> None:
    assert [path.name for path in sorted((run / "weights").iterdir())] == ["config.json", "raw.safetensors"]
    config = json.loads((run / "weights" / "config.json").read_text())
    assert config["task"] == "noisy_classifier"
    assert config["network"]["kind"] == "unet_encoder"
    assert not (run / "samples").exists()
    assert all(name.startswith("network.") for name in checkpoint(run)["state_dict"])


def test_a_stored_classifier_is_the_one_that_was_trained(run: Path) -> None:
    from difflab.pipelines.stored import load_stored

    model, stored = load_stored(run, "auto")
    assert stored.which == "raw"
    assert differing(dict(model.as_module().state_dict()), dict(checkpoint(run)["state_dict"])) == []


def test_stopped_and_continued_is_the_run_that_was_not(run: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    # The rate falls to 0 at the last step, so the run has to be stopped, not told to be shorter.
    trained(tiny_shapes, tmp_path, "callbacks.checkpoint.every_steps=2")
    again = find_run(tmp_path, EXPERIMENT)
    checkpoints = again / "checkpoints"
    for later in ("last.ckpt", "step-000006.ckpt"):
        (checkpoints / later).unlink()
    (checkpoints / "step-000004.ckpt").rename(checkpoints / "last.ckpt")
    assert trained(tiny_shapes, tmp_path, "callbacks.checkpoint.every_steps=2") == again
    saved, reference = checkpoint(again), checkpoint(run)
    assert [place for place in differing(saved, reference) if ".val_loop." not in place] == []
    assert rows(again) == rows(run)


def test_a_label_that_the_network_has_no_class_for_is_refused_before_training(
    tiny_shapes: Path, tmp_path: Path
) -> None:
    done = train(tiny_shapes, tmp_path, "data.classes=5")
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "data.classes=5, but " in done.err
    assert "index.json says 6: leave data.classes out" in done.err


@pytest.mark.slow
def test_two_processes_train_the_classifier_that_one_trains(run: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    arguments = classifier_training(tiny_shapes, "trainer.devices=2", "trainer.strategy=ddp")
    done = spawn_warm_difflab(arguments, tmp_path)
    assert done.status == 0, done.err
    two = find_run(tmp_path, EXPERIMENT)
    assert losses(two) == pytest.approx(losses(run), rel=1e-4)
    for name in ("train/top1", "val/loss", "val/top1"):
        ours, theirs = ([float(row[name]) for row in rows(r) if name in row] for r in (two, run))
        assert ours == pytest.approx(theirs, rel=1e-4), name
