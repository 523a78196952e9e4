"""What a user gets wrong ends in one line that names the fix, and in exit status 2."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from command_line import Done, run_difflab, tiny_training
from difflab.commands.composing import compose_and_validate
from difflab.commands.train import refuse_another_run
from difflab.config.train import TrainConfig
from difflab.data.writing import write_shards
from difflab.errors import UserError
from difflab.tasks.denoising.module import DenoisingModule
from poisoning import poison
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
        (["data.batch_size=7", "trainer.devices=2"], ["data.batch_size=7", "2 processes", "a multiple of 2"]),
        (
            ["data.batch_size=6", "trainer.accumulate=2", "trainer.devices=2"],
            ["data.batch_size=6", "2 processes", "trainer.accumulate=2", "a multiple of 4"],
        ),
        (["data.channels=1"], ["network.channels=3", "data.channels=1"]),
        (["network.norm_groups=7"], ["network"]),
        (["sampler.steps=51"], ["sampler"]),
        (
            ["sampler=ddim_inversion", "~sampler.eta"],
            ["sampler=ddim_inversion maps images to noise and generates none"],
        ),
        (["diffusion.variance=learned_range"], ["diffusion", "hybrid"]),
        (["trainer.val_every_steps=2", "data.val_split=null"], ["data.val_split"]),
        (["trainer.accelerator=mps"], ["accelerator=mps"]),
        (["resume=must"], ["resume=must", "last.ckpt"]),
        (["resume=gone.ckpt"], ["resume=gone.ckpt", "does not exist"]),
        (["init=weights"], ["init.from"]),
        (["init=weights", "init.from=gone"], ["gone", "does not exist"]),
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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.val_split=dev", "trainer.val_every_steps=2"],
            "has no split 'dev' (it has: train, val) to validate on: set trainer.val_every_steps=0,",
        ),
        (["conditioning=class", "data.classes=2"], "has no label (.cls files) in split 'train'"),
    ],
)
def test_data_that_does_not_fit_is_refused_before_anything_is_logged(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    for split in ("train", "val"):
        write_shards(Unlabelled(), tmp_path / "plain", split=split)
    done = run_difflab(tiny_training(tmp_path / "plain", "name=a", *overrides, logger="wandb"), tmp_path)
    assert_refused(done, message)
    assert not list(tmp_path.rglob("wandb"))
    assert not list(tmp_path.rglob("config.yaml"))


class Unlabelled:
    """Eight black images without classes."""

    class_names = None

    def __len__(self) -> int:
        return 8

    def sample(self, index: int) -> dict[str, Any]:
        return {"image": np.zeros((16, 16, 3), np.uint8)}


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
    done = train("init=weights", f"init.from={run}", "network.channel_mult=[1,1]", "name=tuned")
    assert_refused(done, "another architecture", "network.", "expected", "more")


def test_a_batch_in_parts_is_as_large_as_it_is(train: Train) -> None:
    """Parts of 48 do not make 96 images enough for a batch of 144."""
    assert train("data.batch_size=96", "trainer.accumulate=2", "trainer.max_steps=1").status == 0
    done = train("data.batch_size=144", "trainer.accumulate=3", "trainer.max_steps=1", "name=larger")
    assert_refused(done, "fewer than one batch of 144", "data.batch_size")


def test_a_run_goes_on_without_the_weights_that_it_began_with(train: Train, run: Path, tmp_path: Path) -> None:
    weights = tmp_path / "initial.safetensors"
    shutil.copy(run / "weights" / "ema.safetensors", weights)
    begun = ["name=tuned", "init=weights", f"init.from={weights}"]
    assert train(*begun, "trainer.max_steps=1").status == 0
    weights.unlink()
    done = train(*begun, "trainer.max_steps=2")
    assert done.status == 0, done.err


def test_a_first_try_that_failed_does_not_forbid_the_second(train: Train) -> None:
    assert_refused(train("name=mine", "data.image_size=32"), "data.image_size")
    assert train("name=mine", "trainer.max_steps=1").status == 0


def test_losses_that_stay_not_finite_end_training_and_keep_the_last_good_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["callbacks.checkpoint.every_steps=2", "callbacks.guard.max_in_a_row=3"]
    with monkeypatch.context() as patch:
        poison(patch, lambda module, _: module.train_step == 4)
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
    original = DenoisingModule.training_step

    def training_step(self: DenoisingModule, batch: Any, batch_idx: int) -> Any:
        if self.train_step == 3:
            raise RuntimeError("a bug")
        return original(self, batch, batch_idx)

    options = ["callbacks.checkpoint.every_steps=2"]
    with monkeypatch.context() as patch:
        patch.setattr(DenoisingModule, "training_step", training_step)
        with pytest.raises(RuntimeError, match="a bug"):
            train(*options, "name=a")
    assert train(*options, "name=a").status == 0
    assert train(*options, "name=b").status == 0
    a, b = (tmp_path / "runs/ddpm/shapes32" / name for name in "ab")
    assert differing(checkpoint(a), checkpoint(b)) == []
    assert rows(a) == rows(b)


def test_a_start_from_anothers_checkpoint_that_fails_leaves_none_of_it(
    train: Train, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it began with is not its own: the next start may begin with something else."""

    def training_step(self: DenoisingModule, batch: Any, batch_idx: int) -> Any:
        raise RuntimeError("a bug")

    branch = ["name=branch", f"resume={run / 'checkpoints/last.ckpt'}", "trainer.max_steps=4"]
    with monkeypatch.context() as patch:
        patch.setattr(DenoisingModule, "training_step", training_step)
        with pytest.raises(RuntimeError, match="a bug"):
            train(*branch)
    assert list((run.parent / "branch" / "checkpoints").glob("*.ckpt")) == []
    assert train("name=branch", "resume=never", "trainer.max_steps=1", "optimizer.lr=1e-4").status == 0


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seed=3"], "(seed was 0, is 3)"),
        (["seed=3", "optimizer.lr=1", "data.flip=true"], "optimizer.lr was 0.001, is 1.0)"),
        (["seed=3", "optimizer.lr=1", "data.flip=true", "network.dropout=0.5"], " and 1 more)"),
    ],
)
def test_three_changes_are_shown_and_the_others_counted(overrides: list[str], said: str) -> None:
    plain = ["experiment=ddpm/shapes32", "trainer.max_steps=2"]
    stored, asked = (compose_and_validate("train", TrainConfig, [*plain, *more])[0] for more in ([], overrides))
    with pytest.raises(UserError) as error:
        refuse_another_run(stored, asked, Path("there"))
    assert said in str(error.value)
    assert str(error.value).count(" was ") == min(len(overrides), 3)
    assert (" more" in str(error.value)) == (len(overrides) > 3)


def advised(done: Done) -> list[str]:
    """The overrides that a message names, as a shell would read them."""
    return [word for word in shlex.split(done.err) if re.fullmatch(r"[a-z_.]+=\S+", word) and "..." not in word]


def test_the_advice_after_losses_that_are_not_finite_works(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["callbacks.checkpoint.every_steps=2", "callbacks.guard.max_in_a_row=2", "name=mine"]
    with monkeypatch.context() as patch:
        poison(patch, lambda module, _: module.train_step == 4)
        done = train(*options)
    assert advised(done) == [
        f"resume={tmp_path / 'runs/ddpm/shapes32/mine/checkpoints/last.ckpt'}",
        "name=mine-2",
        "optimizer.lr=0.0004",
    ]
    again = train(*options[:-1], *advised(done))
    assert again.status == 0, again.err
    slower = tmp_path / "runs/ddpm/shapes32/mine-2"
    assert checkpoint(slower)["difflab"]["train_step"] == 6
    assert [row["train/step"] for row in rows(slower)] == ["5", "6"]
    # Given once more, as a scheduler would, the command goes on with the new run and does not begin it again.
    assert "nothing to train" in train(*options[:-1], *advised(done)).out


def test_the_advice_without_a_checkpoint_works(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        poison(patch, lambda *_: True)
        done = train("name=mine", "callbacks.guard.max_in_a_row=2")
    assert "there is no checkpoint yet" in done.err
    assert advised(done) == ["optimizer.lr=0.0004"]
    assert train("name=mine", "trainer.max_steps=2", *advised(done)).status == 0


def test_a_run_that_was_begun_with_a_checkpoint_goes_on_from_its_own(train: Train, run: Path, tmp_path: Path) -> None:
    begun = ["name=branch", f"resume={run / 'checkpoints/last.ckpt'}", "optimizer.lr=1e-4"]
    assert train(*begun, "trainer.max_steps=4").status == 0
    branch = tmp_path / "runs/ddpm/shapes32/branch"
    # The checkpoint it began with may be gone by now.
    (run / "checkpoints/last.ckpt").unlink()
    assert train(*begun, "trainer.max_steps=6").status == 0
    assert [row["train/step"] for row in rows(branch)] == ["3", "4", "5", "6"]


def test_a_run_with_checkpoints_does_not_begin_with_anothers(train: Train, run: Path) -> None:
    """Neither a finished one nor one that could go on: what it has trained would be lost."""
    assert train("name=other", "seed=1", "trainer.max_steps=3").status == 0
    last = run.parent / "other/checkpoints/last.ckpt"
    before = (run / "checkpoints/last.ckpt").read_bytes()
    for steps in (2, 3, 9):
        done = train("name=run", f"resume={last}", f"trainer.max_steps={steps}")
        assert_refused(done, f"resume={last}", "has its own checkpoints", "resume=auto", "name=")
    assert (run / "checkpoints/last.ckpt").read_bytes() == before
    assert train("name=run", "resume=auto", "trainer.max_steps=3").status == 0


def test_a_run_may_be_set_back_and_then_goes_on_from_there(train: Train, tmp_path: Path) -> None:
    options = ["name=run", "callbacks.checkpoint.every_steps=2", "callbacks.checkpoint.keep_last=9"]
    assert train(*options).status == 0
    run = tmp_path / "runs/ddpm/shapes32/run"
    whole = rows(run)
    back = f"resume={run / 'checkpoints/step-000002.ckpt'}"
    assert train(*options, back, "trainer.max_steps=3").status == 0
    assert checkpoint(run)["difflab"]["train_step"] == 3
    assert train(*options, back, "trainer.max_steps=4").status == 0
    assert rows(run) == whole[:4]
    assert "nothing to train" in train(*options, "trainer.max_steps=4").out
    assert train(*options).status == 0
    assert rows(run) == whole


@pytest.mark.parametrize("kept", [0, 1000])
def test_a_damaged_checkpoint_names_the_one_to_go_on_from(train: Train, tmp_path: Path, kept: int) -> None:
    options = ["name=run", "callbacks.checkpoint.every_steps=2", "callbacks.checkpoint.keep_last=9"]
    assert train(*options).status == 0
    run = tmp_path / "runs/ddpm/shapes32/run"
    whole = rows(run)
    with (run / "checkpoints/last.ckpt").open("r+b") as file:
        file.truncate(kept)
    refused = train(*options)
    assert_refused(
        refused, "last.ckpt: the file is", "; continue from resume=runs/ddpm/shapes32/run/checkpoints/step-000004"
    )
    assert train(*options, refused.err.split()[-1]).status == 0
    assert rows(run) == whole
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(b"")
    assert_refused(train(*options), "last.ckpt: the file is empty; give another name=... to start anew")


def test_a_kill_before_the_last_checkpoint_was_called_last(train: Train, run: Path) -> None:
    (run / "checkpoints/last.ckpt").unlink()
    assert "nothing to train" in train("name=run", "trainer.max_steps=2").out
    assert train("name=run", "trainer.max_steps=3").status == 0
    assert checkpoint(run)["difflab"]["train_step"] == 3


@pytest.mark.parametrize(
    "content", [None, b"", b"- a\n", b"!!python/object/apply:os.system ['true']\n", b"\xff", b"a: [\n"]
)
def test_a_configuration_that_cannot_be_read_permits_nothing(train: Train, run: Path, content: bytes | None) -> None:
    path = run / "config.yaml"
    path.unlink() if content is None else path.write_bytes(content)
    for changed in ("optimizer.lr=1", "trainer.max_steps=4"):
        assert_refused(train("name=run", changed), "config.yaml")
    assert not path.exists() if content is None else path.read_bytes() == content


def test_a_configuration_of_another_version_is_not_called_another_run(train: Train, run: Path) -> None:
    path = run / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**stored, "quantum": True}))
    assert_refused(train("name=run", "trainer.max_steps=4"), "another version of difflab", "unknown key 'quantum'")
    # An option that came later is not in it, a default that changed since is.
    del stored["network"]["skip_scale"]
    path.write_text(yaml.safe_dump(stored))
    assert train("name=run", "trainer.max_steps=3").status == 0
    stored["network"]["residual_scale"] = 0.5
    path.write_text(yaml.safe_dump(stored))
    assert_refused(train("name=run", "trainer.max_steps=4"), "network.residual_scale was 0.5, is 1.0", "name=")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("trainer.devices=1000000", ["trainer.devices=1000000", "cores"]),
        ("data.workers=100000", ["data.workers=100000", "cores"]),
        ("trainer.num_nodes=1000", ["trainer.num_nodes=1000", "srun"]),
        ("data.prefetch=1000000", ["data.prefetch=1000000", "1024"]),
        ("data.batch_size=1000000000", ["data.batch_size"]),
        ("trainer.accumulate=1000000", ["trainer.accumulate=1000000"]),
        ("callbacks.sample_grid={n: 1000000000}", ["callbacks.sample_grid.n=1000000000", "4096"]),
    ],
)
def test_what_no_machine_has_is_refused_before_anything_is_written(
    train: Train, override: str, parts: list[str], tmp_path: Path
) -> None:
    assert_refused(train(override), *parts)
    assert list(tmp_path.iterdir()) == []


def test_what_goes_into_a_jobs_environment_is_not_written_down(tmp_path: Path) -> None:
    from difflab.tracking.rundir import RunDirectory

    run = RunDirectory(tmp_path / "run")
    run.write_records({"seed": 0}, ["seed=0", "+hydra.job.env_set.WANDB_API_KEY=0123secret"])
    assert (run.path / "overrides.txt").read_text() == "seed=0\n+hydra.job.env_set.WANDB_API_KEY=***\n"
