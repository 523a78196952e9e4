"""Programs that are told to stop, by real signals: nothing is lost, and one line says so."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from command_line import run_difflab, spawn_difflab, start_program, tiny_training
from run_files import checkpoint, find_run

pytestmark = pytest.mark.slow

STATUS = {signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGTERM: 75, signal.SIGUSR1: 75}
ENDLESS = "trainer.max_steps=100000"
TWO = ("trainer.devices=2", "callbacks.preemption.check_every=1")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """start(arguments) -> the program, the first of a process group of its own, which does not outlive the test."""
    programs: list[subprocess.Popen[str]] = []

    def started(arguments: list[str]) -> subprocess.Popen[str]:
        import sys

        command = ["setsid", sys.executable, "-m", "difflab.cli", *arguments]
        programs.append(start_program(command, tmp_path))
        return programs[-1]

    yield started
    for program in programs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def when(ready: Callable[[], object], program: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + 120
    while not ready() and program.poll() is None:
        assert time.monotonic() < ends
        time.sleep(0.02)


def when_training(folder: Path, program: subprocess.Popen[str]) -> None:
    when(lambda: list(folder.glob("runs/*/*/*/metrics.csv")), program)


def ended(program: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """The status of a program, and what it said on standard error without lines of progress."""
    _, err = program.communicate(timeout=120)
    return program.returncode, [
        line for line in err.splitlines() if "| loss" not in line and "devices, batches" not in line
    ]


def children(program: subprocess.Popen[str]) -> list[int]:
    pids = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    return [int(pid) for pid in pids if b"difflab.cli" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def assert_gone(*pids: int) -> None:
    ends = time.monotonic() + 20
    while any(map(is_alive, pids)):
        assert time.monotonic() < ends
        time.sleep(0.02)


def assert_saved(number: signal.Signals, folder: Path, status: int, said: list[str]) -> None:
    run = find_run(folder)
    step = checkpoint(run)["difflab"]["train_step"]
    # The first line is for those who would wait: a step that ends before it is written says the second alone.
    stopping = f"difflab train: {number.name}: stopping after this step (again: at once)"
    assert said[:-1] in ([], [stopping])
    assert said[-1] == (
        f"difflab train: {number.name}: saved at step {step} in {run / 'checkpoints' / 'last.ckpt'}; "
        "the same command goes on from there"
    )
    assert step > 0
    assert status == STATUS[number]
    assert not (run / ".lock").exists()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_group_with_readers_saves(
    number: signal.Signals, start: Callable[..., subprocess.Popen[str]], tiny_shapes: Path, tmp_path: Path
) -> None:
    """As a terminal and SLURM send it: to the readers, their server and everything else, too."""
    program = start(tiny_training(tiny_shapes, ENDLESS, "data.workers=2"))
    when_training(tmp_path, program)
    os.killpg(program.pid, number)
    assert_saved(number, tmp_path, *ended(program))


@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_two_ranks_save_once_and_end_together(
    number: signal.Signals,
    whole_group: bool,
    start: Callable[..., subprocess.Popen[str]],
    tiny_shapes: Path,
    tmp_path: Path,
) -> None:
    program = start(tiny_training(tiny_shapes, ENDLESS, *TWO))
    when_training(tmp_path, program)
    (other,) = children(program)
    (os.killpg if whole_group else os.kill)(program.pid, number)
    assert_saved(number, tmp_path, *ended(program))
    assert_gone(other)


def test_a_signal_to_the_other_rank_saves(
    start: Callable[..., subprocess.Popen[str]], tiny_shapes: Path, tmp_path: Path
) -> None:
    program = start(tiny_training(tiny_shapes, ENDLESS, *TWO))
    when_training(tmp_path, program)
    os.kill(children(program)[0], signal.SIGUSR1)
    status, said = ended(program)
    assert status == 75
    assert len(said) == 1
    assert said[0].startswith("difflab train: SIGUSR1: saved at step ")


@pytest.mark.parametrize(("devices", "number"), [(1, signal.SIGUSR1), (2, signal.SIGINT)])
def test_a_signal_while_starting_is_heeded(
    devices: int, number: signal.Signals, start: Callable[..., subprocess.Popen[str]], tiny_shapes: Path, tmp_path: Path
) -> None:
    program = start(tiny_training(tiny_shapes, ENDLESS, f"trainer.devices={devices}"))
    if devices == 1:
        # Before anything of training is imported.
        when(lambda: b"difflab" in Path(f"/proc/{program.pid}/maps").read_bytes() or handles(program, number), program)
    else:
        when(lambda: children(program), program)
    others = children(program)
    program.send_signal(number)
    status, said = ended(program)
    assert status == STATUS[number]
    assert len(said) == 1
    assert said[0].startswith(f"difflab train: {number.name}: stopped")
    assert_gone(*others)
    # The next one finds nothing in its way.
    assert spawn_difflab(tiny_training(tiny_shapes, "trainer.max_steps=1"), tmp_path).status == 0


def handles(program: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Whether a program has a handler for a signal."""
    status = dict(
        line.split(":\t") for line in Path(f"/proc/{program.pid}/status").read_text().splitlines() if ":\t" in line
    )
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


def test_a_rank_that_is_killed_ends_the_other_in_one_line(
    start: Callable[..., subprocess.Popen[str]], tiny_shapes: Path, tmp_path: Path
) -> None:
    program = start(tiny_training(tiny_shapes, ENDLESS, *TWO))
    when_training(tmp_path, program)
    os.kill(children(program)[0], signal.SIGKILL)
    assert ended(program) == (1, ["difflab train: rank 1 ended (signal 9, SIGKILL); the others are ended too"])


def test_no_rank_outlives_the_first(
    start: Callable[..., subprocess.Popen[str]], tiny_shapes: Path, tmp_path: Path
) -> None:
    program = start(tiny_training(tiny_shapes, ENDLESS, *TWO))
    when_training(tmp_path, program)
    (other,) = children(program)
    program.kill()
    assert ended(program) == (-9, ["difflab train: rank 0 ended; the others are ended too"])
    assert_gone(other)


def test_a_silent_rank_is_named_and_ended(
    start: Callable[..., subprocess.Popen[str]], tiny_shapes: Path, tmp_path: Path
) -> None:
    limits = ("trainer.ranks.warning_s=1", "trainer.ranks.timeout_s=4")
    program = start(tiny_training(tiny_shapes, ENDLESS, *TWO, *limits))
    when_training(tmp_path, program)
    (other,) = children(program)
    os.kill(other, signal.SIGSTOP)
    assert ended(program) == (
        1,
        [
            "difflab train: waiting for rank 1, which has given no sign of life for 1 s",
            "difflab train: rank 1 has given no sign of life for 4 s; all ranks are ended",
        ],
    )
    assert_gone(other)


def test_a_run_has_one_trainer(start: Callable[..., subprocess.Popen[str]], tiny_shapes: Path, tmp_path: Path) -> None:
    program = start(tiny_training(tiny_shapes, ENDLESS, "data.workers=1"))
    when_training(tmp_path, program)
    second = run_difflab(tiny_training(tiny_shapes, ENDLESS), tmp_path)
    assert second.status == 2
    assert second.err.startswith(
        f"difflab train: {find_run(tmp_path)} is being trained already (process {program.pid} on"
    )
    program.kill()
    program.wait()
    # Readers and their server may still be there.
    assert run_difflab(tiny_training(tiny_shapes, "trainer.max_steps=2"), tmp_path).status == 0


def test_nohup_stays_nohup(start: Callable[..., subprocess.Popen[str]], tiny_shapes: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        program = start(tiny_training(tiny_shapes, "trainer.max_steps=12"))
    finally:
        signal.signal(signal.SIGHUP, before)
    when_training(tmp_path, program)
    program.send_signal(signal.SIGHUP)
    assert ended(program) == (0, [])
    assert checkpoint(find_run(tmp_path))["difflab"]["train_step"] == 12


@pytest.mark.parametrize("devices", [1, 2])
def test_drawing_stops_with_a_line(
    devices: int, class_run: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    options = ["n=100000", "batch_size=1", "out=out", "npz=false", "grid=false", f"devices={devices}"]
    program = start(["sample", f"run={class_run}", "accelerator=cpu", "precision=32-true", *options])
    when(lambda: len(list(tmp_path.glob("out/*.png"))) > 3, program)
    others = children(program)
    program.send_signal(signal.SIGTERM)
    status, said = ended(program)
    assert status == 143
    assert re.fullmatch(
        r"difflab sample: SIGTERM: stopped; \d+ of 100000 pictures lie in out; the same command goes on from there",
        said[-1],
    )
    assert not any("Traceback" in line for line in said)
    assert_gone(*others)
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_rank_that_is_killed_ends_drawing(
    class_run: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    options = ["n=100000", "batch_size=1", "out=out", "npz=false", "grid=false", "devices=2"]
    program = start(["sample", f"run={class_run}", "accelerator=cpu", "precision=32-true", *options])
    when(lambda: len(list(tmp_path.glob("out/*.png"))) > 3, program)
    os.kill(children(program)[0], signal.SIGKILL)
    assert ended(program) == (1, ["difflab sample: rank 1 ended (signal 9, SIGKILL); the others are ended too"])


def test_two_drawings_into_one_folder(
    class_run: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    arguments = ["sample", f"run={class_run}", "accelerator=cpu", "n=100000", "batch_size=1", "out=out"]
    program = start(arguments)
    when(lambda: len(list(tmp_path.glob("out/*.png"))) > 3, program)
    second = run_difflab(arguments, tmp_path)
    assert second.status == 2
    assert second.err.startswith(f"difflab sample: out is being drawn into already (process {program.pid} on ")
    assert second.err.endswith("give another out=...\n")
