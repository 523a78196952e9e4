"""Two processes train the run that one process trains."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from command_line import tiny_training, wait_until
from run_files import checkpoint, find_run, losses, rows
from warm_python import spawn_warm_difflab, start_warm_difflab

pytestmark = pytest.mark.slow

OPTIONS = [
    "conditioning=class",
    "conditioning.class_label.classes=6",
    "conditioning.class_label.drop_rate=0.3",
    "trainer.val_every_steps=3",
    "callbacks.sample_grid={every_steps: 3, n: 4, columns: 2, batch_size: 2}",
]
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]


def trained(root: Path, data: Path, *overrides: str, logger: str = "csv") -> Path:
    root.mkdir(exist_ok=True)
    done = spawn_warm_difflab(tiny_training(data, *OPTIONS, *overrides, logger=logger), root)
    assert done.status == 0, done.err
    return find_run(root)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_shapes: Path) -> Path:
    return trained(tmp_path_factory.mktemp("one"), tiny_shapes)


def assert_close_run(run: Path, reference: Path) -> None:
    assert losses(run) == pytest.approx(losses(reference), rel=1e-5)
    assert [row.keys() for row in rows(run)] == [row.keys() for row in rows(reference)]
    ours, theirs = checkpoint(run), checkpoint(reference)
    for clock in ("train_step", "train_images"):
        assert ours["difflab"][clock] == theirs["difflab"][clock]
    for name, tensor in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], tensor, rtol=1e-3, atol=1e-4)


def test_two_processes_make_one_run_with_the_same_losses_and_weights(
    alone: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    run = trained(tmp_path, tiny_shapes, *TWO, logger="wandb")
    assert_close_run(run, alone)
    assert len(list((run / "wandb").glob("offline-run-*"))) == 1
    assert not list(run.glob("metrics.*.csv"))
    assert not list(run.glob("config.*.yaml"))


def test_two_processes_that_accumulate_make_that_run_too(alone: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    assert_close_run(trained(tmp_path, tiny_shapes, *TWO, "trainer.accumulate=2"), alone)


def test_a_run_goes_on_with_another_number_of_processes(alone: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    trained(tmp_path, tiny_shapes, *TWO, "trainer.max_steps=3", "trainer.log_every_steps=2")
    run = trained(tmp_path, tiny_shapes, "trainer.log_every_steps=2")
    reference = trained(tmp_path / "reference", tiny_shapes, "trainer.log_every_steps=2")
    assert losses(run) == pytest.approx(losses(reference), rel=1e-5)
    assert losses(run)[1] == pytest.approx(sum(losses(alone)[2:4]) / 2, rel=1e-5), "losses of rank 1 were lost"


def test_a_signal_ends_both_processes_with_the_status_of_the_first_and_one_line(
    tiny_shapes: Path, tmp_path: Path
) -> None:
    options = [*TWO, "trainer.max_steps=100000", "callbacks.preemption.check_every=1"]
    process = start_warm_difflab(tiny_training(tiny_shapes, *options, logger="wandb"), tmp_path)
    wait_until(lambda: list(tmp_path.glob("runs/*/*/*/metrics.csv")), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    (line,) = (line for line in err.splitlines() if "saved" in line)
    assert line.startswith("difflab train: SIGTERM: saved at step ")
    assert checkpoint(find_run(tmp_path))["difflab"]["train_step"] > 0
