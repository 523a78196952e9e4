"""What a user gets wrong ends in one line that names the fix, and in exit status 2."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import Done, run_difflab, tiny_training
from difflab.models.diffusion import DiffusionModule
from run_files import checkpoint, differing, find_run, rows

Train = Callable[..., Done]


@pytest.fixture
def train(tiny_shapes: Path, tmp_path: Path) -> Train:
    """train(*overrides): `difflab train` on the tiny data, in the test's folder."""

    def start(*overrides: str) -> Done:
        return run_difflab(tiny_training(tiny_shapes, *overrides), tmp_path)

    return start


def assert_refused(done: Done, *parts: str) -> None:
    assert done.status == 2
    assert done.err.startswith("difflab train: ")
    assert done.err.count("\n") == 1, f"more than one line:\n{done.err}"
    for part in parts:
        assert part in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["experiment=ddpm/shapes23"], ["experiment=ddpm/shapes23", "ddpm/shapes32"]),
        (["network=unet_smal"], ["network=unet_smal", "unet_small"]),
        (["optimizer.learning_rate=1"], ["optimizer.learning_rate"]),
        (["+optimizer.learning_rate=1"], ["unknown key 'optimizer.learning_rate'"]),
        (["trainer.max_step=3"], ["trainer.max_step"]),
        (["trainer.max_steps=many"], ["trainer.max_steps='many'", "integer"]),
        (["trainer.max_steps=0"], ["trainer.max_steps=0", "greater than 0"]),
        (["seed=1,2,3"], ["seed"]),
        (["seed"], ["seed"]),
        (["resume=step=100.ckpt"], ["resume"]),
        (["name=a/b"], ["name='a/b'"]),
        (["data.path=nowhere"], ["nowhere"]),
        (["data.image_size=32"], ["16 px", "data.image_size=16"]),
        (["data.batch_size=97"], ["data.batch_size"]),
        (["data.train_split=training"], ["training", "train"]),
        (["data.batch_size=6", "trainer.accumulate=4"], ["data.batch_size=6", "trainer.accumulate=4"]),
        (["data.channels=1"], ["network.channels=3", "data.channels=1"]),
        (["network.norm_groups=7"], ["network"]),
        (["sampler.steps=51"], ["sampler"]),
        (["diffusion.variance=learned_range"], ["diffusion", "hybrid"]),
        (["trainer.val_every_steps=2", "data.val_split=null"], ["data.val_split"]),
        (["trainer.accelerator=mps"], ["accelerator=mps"]),
        (["resume=must"], ["resume=must", "last.ckpt"]),
        (["resume=gone.ckpt"], ["resume=gone.ckpt", "does not exist"]),
        (["init=weights"], ["init.path"]),
        (["init=weights", "init.path=gone"], ["gone", "does not exist"]),
        (["--max-steps=3"], ["--max-steps"]),
        (["-m", "seed=1,2"], ["-m", "launcher"]),
        (["-m", "hydra/launcher=basic", "seed=1,2"], ["launcher"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and "=" in value[0] else None,
)
def test_a_mistake_is_one_line(train: Train, overrides: list[str], parts: list[str]) -> None:
    assert_refused(train(*overrides), *parts)


@pytest.fixture
def run(train: Train, tmp_path: Path) -> Path:
    """A run of two steps named `run`."""
    done = train("name=run", "trainer.max_steps=2")
    assert done.status == 0, done.err
    return tmp_path / "runs" / "ddpm" / "shapes32" / "run"


def test_a_directory_with_another_run_is_refused_and_left_alone(train: Train, run: Path) -> None:
    before = (run / "config.yaml").read_text()
    assert_refused(
        train("name=run", "optimizer.lr=1", "seed=3"),
        "another configuration",
        "seed was 0, is 3",
        "optimizer.lr was 0.0008, is 1",
        "name=",
    )
    assert (run / "config.yaml").read_text() == before


def test_a_run_is_not_trained_twice_where_that_was_forbidden(train: Train, run: Path) -> None:
    assert_refused(train("name=run", "resume=never"), "resume=never", "last.ckpt")


def test_fewer_steps_than_are_done_are_refused(train: Train, run: Path) -> None:
    assert_refused(train("name=run", "trainer.max_steps=1"), "trainer.max_steps=1", "step 2", "larger")
    assert checkpoint(run)["difflab"]["train_step"] == 2


def test_a_checkpoint_of_another_run_with_nothing_left_to_train_is_refused(train: Train, run: Path) -> None:
    last = run / "checkpoints" / "last.ckpt"
    assert_refused(train("name=new", f"resume={last}", "trainer.max_steps=2"), "trainer.max_steps=2", "step 2")


def test_a_checkpoint_of_another_architecture_is_refused(train: Train, run: Path) -> None:
    last = run / "checkpoints" / "last.ckpt"
    assert_refused(train("name=wide", f"resume={last}", "network.base_channels=64"), str(last), "architecture", "[")


def test_a_checkpoint_of_another_seed_is_refused(train: Train, run: Path) -> None:
    last = run / "checkpoints" / "last.ckpt"
    done = train("name=other", f"resume={last}", "seed=9")
    assert done.status == 2
    assert "seed" in done.last_error


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_checkpoint_is_refused(train: Train, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    assert_refused(train("resume=x.ckpt"), "x.ckpt")


def test_a_torch_file_that_is_no_training_checkpoint_is_refused(train: Train, tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(1)}, tmp_path / "x.ckpt")
    assert_refused(train("resume=x.ckpt"), "x.ckpt", "not a training checkpoint")


def test_weights_of_another_architecture_name_the_first_keys_that_differ(train: Train, run: Path) -> None:
    done = train("init=weights", f"init.path={run}", "network.channel_mult=[1,1]", "name=tuned")
    assert_refused(done, "another architecture", "network.", "expected", "more")


def test_a_first_try_that_failed_does_not_forbid_the_second(train: Train) -> None:
    assert_refused(train("name=mine", "data.image_size=32"), "data.image_size")
    assert train("name=mine", "trainer.max_steps=1").status == 0


def test_losses_that_stay_not_finite_end_training_and_keep_the_last_good_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DiffusionModule.training_step

    def training_step(self: DiffusionModule, batch: Any, batch_idx: int) -> Any:
        return original(self, batch, batch_idx) * (math.nan if self.train_step == 4 else 1.0)

    options = ["callbacks.checkpoint.every_steps=2", "callbacks.guard.max_in_a_row=3"]
    with monkeypatch.context() as patch:
        patch.setattr(DiffusionModule, "training_step", training_step)
        done = train(*options)
    assert_refused(done, "not finite 3 times in a row after step 4", "optimizer.lr")
    run = find_run(tmp_path)
    saved = checkpoint(run)
    assert saved["difflab"]["train_step"] == 4
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())
    assert [row["train/skipped_steps"] for row in rows(run) if "train/skipped_steps" in row] == ["1", "2", "3"]
    assert train(*options).status == 0
    assert checkpoint(run)["difflab"]["train_step"] == 6


def test_a_learning_rate_that_explodes_ends_in_one_line_without_a_bad_checkpoint(train: Train, tmp_path: Path) -> None:
    done = train("optimizer.lr=1e30", "trainer.max_steps=40", "callbacks.checkpoint.every_steps=1")
    assert_refused(done, "not finite 10 times in a row")
    saved = checkpoint(find_run(tmp_path))["state_dict"]
    assert all(tensor.isfinite().all() for tensor in saved.values())


def test_a_bug_keeps_its_traceback_and_the_run_can_go_on(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DiffusionModule.training_step

    def training_step(self: DiffusionModule, batch: Any, batch_idx: int) -> Any:
        if self.train_step == 3:
            raise RuntimeError("a bug")
        return original(self, batch, batch_idx)

    options = ["callbacks.checkpoint.every_steps=2"]
    with monkeypatch.context() as patch:
        patch.setattr(DiffusionModule, "training_step", training_step)
        with pytest.raises(RuntimeError, match="a bug"):
            train(*options, "name=a")
    assert train(*options, "name=a").status == 0
    assert train(*options, "name=b").status == 0
    a, b = (tmp_path / "runs/ddpm/shapes32" / name for name in "ab")
    assert differing(checkpoint(a), checkpoint(b)) == []
    assert rows(a) == rows(b)
