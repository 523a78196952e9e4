"""A run that was stopped and continued is the run that was not: bit for bit, in the weights and in the log."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import run_difflab, tiny_training, wait_until
from difflab.tasks.denoising.module import DenoisingModule
from poisoning import poison
from run_files import assert_same_run, checkpoint, find_run, losses, rows
from warm_python import spawn_warm_difflab, start_warm_difflab

STEPS = 6
VARIANTS = {
    "dropout": ["network.dropout=0.3"],
    "accumulate": ["trainer.accumulate=2", "network.dropout=0.3"],
    # One batch of 64 of 96 images an epoch; a third of them is left out, others each time.
    "leaving_out": ["trainer.accumulate=2", "data.batch_size=64", "data.flip=true"],
    "classes": [
        "conditioning=class",
        "conditioning.class_label.classes=6",
        "conditioning.class_label.drop_rate=0.3",
        "optimizer.weight_decay=0.1",
        "callbacks.ema.warmup=count",
        "data.flip=true",
    ],
    "loss_aware": [
        "diffusion.timestep_sampling.kind=loss_aware",
        "+diffusion.timestep_sampling.history_per_term=1",
        "diffusion.timesteps=4",
        "sampler.steps=4",
        "diffusion/schedule=linear",
        "trainer.log_every_steps=4",
    ],
    "validation": ["trainer.val_every_steps=2", "trainer.log_every_steps=5"],
}

Start = Callable[..., Path]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, tiny_shapes: Path) -> Callable[[str], Path]:
    """straight(variant): the run of six steps that nothing interrupted, trained once."""
    runs: dict[str, Path] = {}

    def of(variant: str) -> Path:
        if variant not in runs:
            root = tmp_path_factory.mktemp(variant)
            assert run_difflab(tiny_training(tiny_shapes, *VARIANTS[variant]), root).status == 0
            runs[variant] = find_run(root)
        return runs[variant]

    return of


@pytest.fixture
def train(tiny_shapes: Path, tmp_path: Path) -> Start:
    """train(variant, *overrides) -> the run directory."""

    def start(variant: str, *overrides: str) -> Path:
        done = run_difflab(tiny_training(tiny_shapes, *VARIANTS[variant], *overrides), tmp_path)
        assert done.status == 0, done.err
        return find_run(tmp_path)

    return start


def with_stops(stops: list[int]) -> Iterator[str]:
    yield from (f"trainer.max_steps={stop}" for stop in [*stops, STEPS])


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_stopped_and_continued(stop: int, straight: Callable[[str], Path], train: Start) -> None:
    for length in with_stops([stop]):
        run = train("dropout", length)
    assert_same_run(run, straight("dropout"))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "dropout"])
def test_stopped_twice_in_every_kind_of_run(variant: str, straight: Callable[[str], Path], train: Start) -> None:
    for length in with_stops([2, 4]):
        run = train(variant, length)
    assert_same_run(run, straight(variant))


def test_a_run_of_one_seed_is_reproducible_and_another_seed_is_another_run(
    straight: Callable[[str], Path], train: Start
) -> None:
    again = train("dropout", "name=again")
    assert_same_run(again, straight("dropout"))
    train("dropout", "seed=1", "output_root=others/runs")
    assert losses(find_run(again.parents[3] / "others"))[0] != losses(again)[0]


def test_steps_that_were_skipped_stay_skipped(
    tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two losses that are NaN cost two batches; going on takes neither the batches nor the count back."""
    poison(monkeypatch, lambda module, batch_idx: batch_idx in (1, 4))

    def run(name: str, *lengths: int) -> Path:
        for length in lengths:
            done = run_difflab(tiny_training(tiny_shapes, f"name={name}", f"trainer.max_steps={length}"), tmp_path)
            assert done.status == 0, done.err
        return tmp_path / "runs/ddpm/shapes32" / name

    one, two = run("one", STEPS), run("two", 2, STEPS)
    assert_same_run(two, one)
    assert checkpoint(one)["difflab"]["train_step"] == STEPS
    assert [row["train/skipped_steps"] for row in rows(one) if "train/skipped_steps" in row] == ["1", "2"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_exits_with_75_and_the_run_goes_on_exactly(
    number: signal.Signals,
    straight: Callable[[str], Path],
    train: Start,
    tiny_shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = DenoisingModule.training_step

    def training_step(self: DenoisingModule, batch: Any, batch_idx: int) -> Any:
        if self.train_step == 2:
            os.kill(os.getpid(), number)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DenoisingModule, "training_step", training_step)
        done = run_difflab(tiny_training(tiny_shapes, *VARIANTS["dropout"]), tmp_path)
    run = find_run(tmp_path)
    assert done.status == 75
    assert [line for line in done.err.splitlines() if "saved" in line] == [
        f"difflab train: {number.name}: saved at step 3 in {run / 'checkpoints' / 'last.ckpt'}; "
        "the same command continues from there"
    ]
    assert checkpoint(run)["difflab"]["train_step"] == 3
    assert_same_run(train("dropout"), straight("dropout"))


def test_an_interrupted_run_is_not_taken_for_a_crash(
    tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training_step(self: DenoisingModule, batch: Any, batch_idx: int) -> Any:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(DenoisingModule, "training_step", training_step)
    try:
        done = run_difflab(tiny_training(tiny_shapes), tmp_path)
    finally:
        # Lightning ignores further Ctrl-C while it shuts down.
        signal.signal(signal.SIGINT, handler)
    assert done.status == 130
    assert done.last_error == "difflab train: interrupted"


@pytest.mark.slow
def test_workers_change_nothing(straight: Callable[[str], Path], train: Start) -> None:
    for length in with_stops([3]):
        run = train("dropout", length, "data.workers=2")
    assert_same_run(run, straight("dropout"))


LONG = 60


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory, tiny_shapes: Path) -> Path:
    """An uninterrupted run in a process of its own, with an offline W&B run."""
    root = tmp_path_factory.mktemp("long")
    done = spawn_warm_difflab(long_training(tiny_shapes), root)
    assert done.status == 0, done.err
    return find_run(root)


def long_training(data: Path) -> list[str]:
    return tiny_training(
        data,
        "network.dropout=0.3",
        f"trainer.max_steps={LONG}",
        "trainer.log_every_steps=3",
        "callbacks.checkpoint.every_steps=2",
        logger="wandb",
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_was_killed_goes_on_exactly(
    number: signal.Signals, long_run: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    from difflab.tracking.rundir import RunDirectory
    from difflab.tracking.runs import read_offline_run

    process = start_warm_difflab(long_training(tiny_shapes), tmp_path)
    wait_until(lambda: list(tmp_path.glob("runs/*/*/*/checkpoints/step-*.ckpt")), process)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == (75 if number == signal.SIGTERM else -number)
    run = find_run(tmp_path)
    run_id = (run / "wandb/run_id").read_text()
    saved = RunDirectory(run).checkpoint_to_resume("auto")
    assert saved is not None
    assert 0 < checkpoint(run, saved.name)["difflab"]["train_step"] < LONG

    done = spawn_warm_difflab(long_training(tiny_shapes), tmp_path)
    assert done.status == 0, done.err
    assert_same_run(run, long_run)
    assert (run / "wandb/run_id").read_text() == run_id
    together, reference = read_offline_run(run), read_offline_run(long_run)
    assert together.run_id == run_id.strip()
    assert len(together.segments) == 2
    assert together.series("train/loss")[-1] == reference.series("train/loss")[-1]
    assert {step for step, _ in together.series("train/loss")} <= {step for step, _ in reference.series("train/loss")}
