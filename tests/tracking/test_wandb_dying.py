"""W&B's own process is killed or stopped in the middle: nothing of the run but W&B's part changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from command_line import run_difflab, start_difflab, tiny_training
from difflab.callbacks.training_log import TrainingLog
from difflab.tracking import wandb as tracking
from difflab.tracking.config import WandbConfig
from difflab.tracking.csv_rows import read_csv
from difflab.tracking.rundir import RunDirectory
from difflab.tracking.runs import read_offline_run
from difflab.tracking.wandb import wandb_run
from difflab.tracking.wandb_service import service_process

pytestmark = pytest.mark.slow
KILLED_AT = 3


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def has_rows(run: Path) -> bool:
    """Whether rows are in W&B's file already, and not only on their way."""
    files = list(run.glob("wandb/offline-run-*/*.wandb"))
    return any(file.stat().st_size > 1000 for file in files) and bool(read_offline_run(run).series("train/loss"))


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """W&B's process, at the third step of a training, once its file has some rows."""
    found: list[subprocess.Popen[bytes]] = []
    act = TrainingLog.act

    def acting(self: TrainingLog, trainer: object, pl_module: object) -> None:
        act(self, trainer, pl_module)  # type: ignore[arg-type]
        if pl_module.train_step == KILLED_AT and not found:  # type: ignore[attr-defined]
            until(lambda: has_rows(tmp_path / "runs/ddpm/shapes32/run"))
            process = service_process()
            assert process is not None
            found.append(process)
            process.send_signal(getattr(signal, os.environ["TEST_SIGNAL"]))
            if os.environ["TEST_SIGNAL"] != "SIGSTOP":
                process.wait(10)

    monkeypatch.setattr(TrainingLog, "act", acting)
    return found


@pytest.fixture(scope="module")
def undisturbed(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run_difflab(tiny_training(tiny_shapes, "name=run"), folder).status == 0
    return folder / "runs/ddpm/shapes32/run"


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSTOP"])
def test_a_training_goes_on_without_w_and_b(
    name: str,
    tiny_shapes: Path,
    undisturbed: Path,
    tmp_path: Path,
    service: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_SIGNAL", name)
    monkeypatch.setattr(tracking, "OFFLINE_SECONDS", 0.5)
    hooks, handler = (sys.exit, sys.excepthook), signal.getsignal(signal.SIGTERM)
    ended = run_difflab(tiny_training(tiny_shapes, "name=run", logger="wandb"), tmp_path)
    assert ended.status == 0, ended
    run = tmp_path / "runs/ddpm/shapes32/run"
    said = [line for line in ended.err.splitlines() if line.startswith("difflab: W&B")]
    assert len(said) == 1, ended.err
    assert "Traceback" not in ended.err
    assert said[0].removeprefix("difflab: ") in (run / "log.txt").read_text()
    losses = [
        [(row["train/step"], row["train/loss"]) for row in read_csv(r / "metrics.csv")] for r in (run, undisturbed)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6
    weights, expected = (load_file(each / "weights/ema.safetensors") for each in (run, undisturbed))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    logged = [step for step, _ in read_offline_run(run).series("train/loss")]
    assert logged[:1] == [1]
    assert read_offline_run(run).exit_code is None
    assert service[0].poll() is not None, "it is not left behind"
    assert hooks == (sys.exit, sys.excepthook)
    assert handler == signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize("error", [RuntimeError("crash"), SystemExit(75), KeyboardInterrupt(), None])
def test_what_a_run_ends_with_stays(tmp_path: Path, error: BaseException | None) -> None:
    run = RunDirectory(tmp_path / "run")

    def block() -> None:
        with wandb_run(WandbConfig(), run, {"seed": 1}) as logger:
            assert logger is not None
            process = service_process()
            assert process is not None
            process.kill()
            if error is not None:
                raise error

    if error is None:
        block()
    else:
        with pytest.raises(type(error)) as caught:
            block()
        assert caught.value is error
    with wandb_run(WandbConfig(), run, {"seed": 1}) as logger:
        assert logger is not None
        logger.log_metrics({"x": 2.0}, step=1)
    again = read_offline_run(run.path)
    assert (again.series("x"), again.exit_code) == ([(1, 2.0)], 0)


@pytest.mark.parametrize(
    ("error", "config", "seconds"),
    [
        (None, WandbConfig(), 65.0),
        (None, WandbConfig(finish_timeout=7.5), 12.5),
        (SystemExit(75), WandbConfig(), 20.0),
        (SystemExit(75), WandbConfig(finish_timeout=7.5), 7.5),
    ],
)
def test_how_long_the_end_is_waited_for_and_a_second_ctrl_c(
    error: BaseException | None,
    config: WandbConfig,
    seconds: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []

    def interrupted(run: object, call: object, status: int, patience: float) -> None:
        waited.append(patience)
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking, "finish", interrupted)
    found: list[subprocess.Popen[bytes] | None] = []

    def block() -> None:
        with wandb_run(config, RunDirectory(tmp_path), {}):
            found.append(service_process())
            if error is not None:
                raise error

    with pytest.raises(KeyboardInterrupt if error is None else SystemExit):
        block()
    (process,) = found
    assert waited == [seconds]
    assert process is not None
    assert process.poll() is not None
    assert service_process() is None


def test_a_signal_to_every_process_saves_and_ends_with_its_status(tiny_shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/ddpm/shapes32/run"
    arguments = tiny_training(tiny_shapes, "name=run", "trainer.max_steps=100000", logger="wandb")
    process = start_difflab(arguments, tmp_path)
    until(lambda: has_rows(run))
    # As SLURM does: all at once, W&B's service among them although it is in a session of its own.
    for pid in reversed(family(process.pid)):
        os.kill(pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "Traceback" not in err
    assert "SIGTERM: saved at step" in err
    assert (run / "checkpoints/last.ckpt").is_file()
    assert read_offline_run(run).series("train/loss")[0][0] == 1


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]
