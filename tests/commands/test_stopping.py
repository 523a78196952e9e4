"""Programs that are told to stop, by real signals: nothing is lost, and one line says so."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import run_difflab, start_difflab, tiny_training, wait_until
from difflab.signals import LAUNCHED_BY
from run_files import checkpoint, find_run
from tiny_runs import ON_CPU
from warm_python import Forked, start_warm_difflab

pytestmark = pytest.mark.slow

STATUS = {signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGTERM: 75, signal.SIGUSR1: 75}
ENDLESS = "trainer.max_steps=100000"
TWO = ("trainer.devices=2", "callbacks.preemption.check_every=1")
DRAWING = (
    *ON_CPU,
    "n=100000",
    # It would pay for so many.
    "compile=false",
    "batch_size=1",
    "out=out",
    "npz=false",
    "grid=false",
)


def when(ready: Callable[[], object], program: Forked) -> None:
    def ready_or_ended() -> bool:
        return bool(ready()) or program.poll() is not None

    wait_until(ready_or_ended)
    assert program.poll() is None, program.communicate(30)


def when_training(folder: Path, program: Forked) -> None:
    when(lambda: list(folder.glob("runs/*/*/*/metrics.csv")), program)


def ended(program: Forked) -> tuple[int, list[str]]:
    """The status of a program, and what it said on standard error without lines of progress."""
    _, err = program.communicate(120)
    said = [line for line in err.splitlines() if "| loss" not in line and "devices, batches" not in line]
    return program.wait(0), said


def children(program: Forked) -> list[int]:
    """The further ranks that a program has started."""
    pids = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    return [int(pid) for pid in pids if f"{LAUNCHED_BY}={program.pid}".encode() in environment_of(int(pid))]


def environment_of(pid: int) -> bytes:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


def is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def assert_gone(*pids: int) -> None:
    wait_until(lambda: not any(map(is_alive, pids)), seconds=20)


def assert_saved(number: signal.Signals, folder: Path, status: int, said: list[str]) -> None:
    run = find_run(folder)
    step = checkpoint(run)["difflab"]["train_step"]
    # The first line is for those who would wait: a step that ends before it is written says the second alone.
    stopping = f"difflab train: {number.name}: stopping after this step (again: at once)"
    assert said[:-1] in ([], [stopping])
    assert said[-1] == (
        f"difflab train: {number.name}: saved at step {step} in {run / 'checkpoints' / 'last.ckpt'}; "
        "the same command continues from there"
    )
    assert step > 0
    assert status == STATUS[number]
    assert not (run / ".lock").exists()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_group_with_readers_saves(number: signal.Signals, tiny_shapes: Path, tmp_path: Path) -> None:
    """As a terminal and SLURM send it: to the readers, their server and everything else, too."""
    program = start_warm_difflab(tiny_training(tiny_shapes, ENDLESS, "data.workers=2"), tmp_path)
    when_training(tmp_path, program)
    os.killpg(program.pid, number)
    assert_saved(number, tmp_path, *ended(program))


@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_two_ranks_save_once_and_end_together(
    number: signal.Signals, whole_group: bool, tiny_shapes: Path, tmp_path: Path
) -> None:
    program = start_warm_difflab(tiny_training(tiny_shapes, ENDLESS, *TWO), tmp_path)
    when_training(tmp_path, program)
    (other,) = children(program)
    (os.killpg if whole_group else os.kill)(program.pid, number)
    assert_saved(number, tmp_path, *ended(program))
    assert_gone(other)


def test_a_signal_to_the_other_rank_saves_and_each_line_is_said_once(tiny_shapes: Path, tmp_path: Path) -> None:
    tars = tmp_path / "tars"
    shutil.copytree(tiny_shapes, tars, ignore=shutil.ignore_patterns("*.json", "*.npy"))
    with tarfile.open(next(tars.glob("train*.tar")), "a") as tar:
        tar.add(__file__, "22.05.png")
    program = start_warm_difflab(tiny_training(tars, ENDLESS, *TWO), tmp_path)
    when_training(tmp_path, program)
    os.kill(children(program)[0], signal.SIGUSR1)
    status, said = ended(program)
    assert status == 75
    assert len(said) == 2
    assert said[0].startswith(f"{tars}: of the files in the tars, 1 are not read")
    assert said[1].startswith("difflab train: SIGUSR1: saved at step ")
    # Neither does the log repeat it for each rank.
    assert (find_run(tmp_path) / "log.txt").read_text().count("1 are not read") == 1


def test_a_signal_before_anything_is_imported_is_heeded(tiny_shapes: Path, tmp_path: Path) -> None:
    program = start_difflab(tiny_training(tiny_shapes, ENDLESS), tmp_path)
    wait_until(lambda: handles(program.pid, signal.SIGUSR1), program)
    program.send_signal(signal.SIGUSR1)
    _, err = program.communicate(timeout=120)
    assert program.returncode == 75
    assert err == "difflab train: SIGUSR1: stopped\n"


def wait_for_each_other(program: Forked) -> bool:
    """Whether the first rank has opened the place where all of them meet."""
    threads = Path(f"/proc/{program.pid}/task").glob("*/comm")
    return any(name.read_text().startswith("pt_tcpstore") for name in threads)


@pytest.mark.parametrize(
    ("number", "ready"), [(signal.SIGINT, children), (signal.SIGTERM, wait_for_each_other)], ids=["started", "meeting"]
)
def test_a_signal_while_ranks_start_is_heeded(
    number: signal.Signals, ready: Callable[[Forked], object], tiny_shapes: Path, tmp_path: Path
) -> None:
    program = start_warm_difflab(tiny_training(tiny_shapes, ENDLESS, *TWO), tmp_path)
    when(lambda: ready(program), program)
    others = children(program)
    assert others
    program.send_signal(number)
    status, said = ended(program)
    assert status == STATUS[number]
    assert said[:-1] in ([], [f"difflab train: {number.name}: stopping as soon as possible (again: at once)"])
    assert said[-1].startswith(f"difflab train: {number.name}: stopped")
    assert_gone(*others)
    # The next one finds nothing in its way.
    assert run_difflab(tiny_training(tiny_shapes, "trainer.max_steps=1"), tmp_path).status == 0


def test_no_rank_waits_for_a_first_that_was_killed_while_it_started(tiny_shapes: Path, tmp_path: Path) -> None:
    program = start_warm_difflab(tiny_training(tiny_shapes, ENDLESS, *TWO), tmp_path)
    when(lambda: children(program), program)
    others = children(program)
    os.kill(program.pid, signal.SIGKILL)
    assert ended(program) == (-9, ["difflab train: rank 0 ended; the others are ended too"])
    assert_gone(*others)


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a program has a handler for a signal."""
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


def test_a_rank_that_is_killed_ends_the_other_in_one_line(tiny_shapes: Path, tmp_path: Path) -> None:
    program = start_warm_difflab(tiny_training(tiny_shapes, ENDLESS, *TWO), tmp_path)
    when_training(tmp_path, program)
    os.kill(children(program)[0], signal.SIGKILL)
    assert ended(program) == (1, ["difflab train: rank 1 ended (signal 9, SIGKILL); the others are ended too"])


def test_no_rank_outlives_the_first(tiny_shapes: Path, tmp_path: Path) -> None:
    program = start_warm_difflab(tiny_training(tiny_shapes, ENDLESS, *TWO), tmp_path)
    when_training(tmp_path, program)
    (other,) = children(program)
    program.send_signal(signal.SIGKILL)
    assert ended(program) == (-9, ["difflab train: rank 0 ended; the others are ended too"])
    assert_gone(other)


def test_a_silent_rank_is_named_and_ended(tiny_shapes: Path, tmp_path: Path) -> None:
    limits = ("trainer.ranks.warning_s=1", "trainer.ranks.timeout_s=4")
    program = start_warm_difflab(tiny_training(tiny_shapes, ENDLESS, *TWO, *limits), tmp_path)
    when_training(tmp_path, program)
    (other,) = children(program)
    os.kill(other, signal.SIGSTOP)
    assert ended(program) == (
        1,
        [
            "difflab train: waiting for rank 1, which has not responded for 1 s",
            "difflab train: rank 1 has not responded for 4 s; all ranks are ended",
        ],
    )
    assert_gone(other)


def test_a_run_has_one_trainer(tiny_shapes: Path, tmp_path: Path) -> None:
    program = start_warm_difflab(tiny_training(tiny_shapes, ENDLESS, "data.workers=1"), tmp_path)
    when_training(tmp_path, program)
    second = run_difflab(tiny_training(tiny_shapes, ENDLESS), tmp_path)
    assert second.status == 2
    assert second.err.startswith(
        f"difflab train: {find_run(tmp_path)} is being trained already (process {program.pid} on"
    )
    program.send_signal(signal.SIGKILL)
    program.wait(60)
    # Readers and their server may still be there.
    assert run_difflab(tiny_training(tiny_shapes, "trainer.max_steps=2"), tmp_path).status == 0


def test_nohup_stays_nohup(tiny_shapes: Path, tmp_path: Path) -> None:
    program = start_warm_difflab(tiny_training(tiny_shapes, "trainer.max_steps=12"), tmp_path, ignored=[signal.SIGHUP])
    when_training(tmp_path, program)
    program.send_signal(signal.SIGHUP)
    assert ended(program) == (0, [])
    assert checkpoint(find_run(tmp_path))["difflab"]["train_step"] == 12


@pytest.mark.parametrize("devices", [1, 2])
def test_drawing_has_its_folder_to_itself_and_stops_with_a_line(devices: int, class_run: Path, tmp_path: Path) -> None:
    arguments = ["sample", f"run={class_run}", *DRAWING]
    program = start_warm_difflab([*arguments, f"devices={devices}"], tmp_path)
    when(lambda: len(list(tmp_path.glob("out/*.png"))) > 3, program)
    others = children(program)
    assert len(others) == devices - 1
    second = run_difflab(arguments, tmp_path)
    assert second.status == 2
    assert second.err.startswith(f"difflab sample: out is being drawn into already (process {program.pid} on ")
    assert second.err.endswith("give another out=...\n")
    program.send_signal(signal.SIGTERM)
    status, said = ended(program)
    assert status == 143
    assert re.fullmatch(
        r"difflab sample: SIGTERM: stopped; \d+ of 100000 images are in out; the same command continues from there",
        said[-1],
    )
    assert not any("Traceback" in line for line in said)
    assert_gone(*others)
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_rank_that_is_killed_ends_drawing(class_run: Path, tmp_path: Path) -> None:
    program = start_warm_difflab(["sample", f"run={class_run}", *DRAWING, "devices=2"], tmp_path)
    when(lambda: len(list(tmp_path.glob("out/*.png"))) > 3, program)
    os.kill(children(program)[0], signal.SIGKILL)
    assert ended(program) == (1, ["difflab sample: rank 1 ended (signal 9, SIGKILL); the others are ended too"])
