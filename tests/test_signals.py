from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from command_line import start_program
from difflab import signals
from difflab.signals import Stopped, deferred, interruptible, listening, received, shielded

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def kill(number: int) -> None:
    """Let this process have a signal, and its handler run."""
    os.kill(os.getpid(), number)
    # Handlers run between two bytecodes.
    for _ in range(10):
        pass


@pytest.mark.parametrize("number", ALL)
def test_the_first_signal_raises_and_says_how_the_program_ends(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in ALL}
    with listening("here"):
        with pytest.raises(Stopped) as caught:
            kill(number)
        assert received() == number
    assert caught.value.number is number
    assert caught.value.status == 128 + number
    assert isinstance(caught.value, KeyboardInterrupt)
    assert {n: signal.getsignal(n) for n in ALL} == before
    assert received() == 0


def test_a_deferred_signal_is_noted_and_raised_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []

    def step() -> None:
        with listening("here"), deferred("this step"):
            kill(signal.SIGHUP)
            assert received() == signal.SIGHUP
            waited_for(lambda: bool(seen.append(capsys.readouterr().err) or seen[-1]))

    with pytest.raises(Stopped):
        step()
    assert "".join(seen) == "here: SIGHUP: stopping after this step (again: at once)\n"


def waited_for(ready) -> None:
    ends = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_inside_it_may_be_raised_at_once_also_when_it_came_before() -> None:
    with pytest.raises(Stopped), deferred("this step"), interruptible():
        kill(signal.SIGTERM)
    reached = []

    def late() -> None:
        with deferred("this step"):
            kill(signal.SIGTERM)
            reached.append(1)
            with interruptible():
                reached.append(2)

    with pytest.raises(Stopped):
        late()
    assert reached == [1]


def test_signals_may_be_noted_until_somebody_catches_them() -> None:
    with listening("here", at_once=False):
        kill(signal.SIGTERM)
        assert received() == signal.SIGTERM
        with pytest.raises(Stopped), interruptible():
            pytest.fail("it came before")


def test_a_signal_that_waits_for_the_handlers_finds_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A further rank is started with these blocked."""
    monkeypatch.setattr(signals, "_first", os.getppid())
    before = {n: signal.getsignal(n) for n in ALL}
    signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
    # To this thread, as the only one of a rank that starts: other tests have left some that block nothing.
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    with pytest.raises(Stopped), listening("here"):
        pytest.fail("it came before")
    assert {n: signal.getsignal(n) for n in ALL} == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(ALL)


@pytest.mark.parametrize(("again", "status"), [("()", 143), ("OF_SCHEDULERS", 75)])
def test_an_import_is_ended_and_not_broken(again: str, status: int, tmp_path: Path) -> None:
    """Extension modules turn what is raised there into errors of their own."""
    (tmp_path / "interrupted.py").write_text(
        "import os, signal, time\nprint('up')\ntry:\n os.kill(os.getpid(), signal.SIGTERM)\n time.sleep(30)\n"
        "except BaseException: raise SystemError('broken') from None\n"
    )
    code = f"sys.path.append({str(tmp_path)!r})\nwith listening('here', again={again}): import interrupted"
    running = program(code)
    assert running.communicate(timeout=30)[1] == "here: SIGTERM: stopped\n"
    assert running.returncode == status


def test_the_first_process_may_be_gone_before_the_first_line() -> None:
    code = "print('up', follows_another(), signals.first_is_gone(), LAUNCHED_BY in os.environ)"
    for first, gone in ((os.getpid(), False), (1, True)):
        with program(code, f"up True {gone} False\n", {signals.LAUNCHED_BY: str(first)}) as ran:
            assert ran.wait(timeout=30) == 0


def test_interruptible_alone_changes_nothing() -> None:
    with interruptible():
        assert received() == 0


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening("here"):
            kill(signal.SIGHUP)
            assert received() == 0
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_two_in_a_row_are_one() -> None:
    """As of `timeout`, which signals its child and then the group."""

    def step() -> None:
        with listening("here"), deferred("this step"):
            kill(signal.SIGTERM)
            kill(signal.SIGTERM)
            time.sleep(3 * signals._ECHO_S)

    with pytest.raises(Stopped):
        step()


def program(code: str, begins: str = "up\n", environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    head = "import os, signal, sys, time\nfrom difflab.signals import *\nfrom difflab import signals\n"
    running = start_program([sys.executable, "-c", head + code], Path.cwd(), environment)
    assert running.stdout is not None
    assert running.stdout.readline() == begins
    return running


# A main thread that waits in C and runs no handler.
DEAF = (
    "import functools, threading\nthreading.Timer(0.5, functools.partial(print, 'up', flush=True)).start()\n"
    "with listening('here'){}:\n signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)\n os.read(os.pipe()[0], 1)"
)


def test_the_second_ends_at_once_where_the_main_thread_does_not_listen() -> None:
    running = program(DEAF.format(", deferred('this step')"))
    running.send_signal(signal.SIGTERM)
    assert running.stderr is not None
    assert running.stderr.readline() == "here: SIGTERM: stopping after this step (again: at once)\n"
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=30)[1] == "here: SIGINT: stopped at once\n"
    assert running.returncode == 130


def test_a_busy_main_thread_is_said_to_have_heard() -> None:
    running = program(DEAF.format(""))
    running.send_signal(signal.SIGUSR1)
    assert running.stderr is not None
    assert running.stderr.readline() == "here: SIGUSR1: stopping as soon as possible (again: at once)\n"
    running.send_signal(signal.SIGUSR1)
    assert running.wait(timeout=30) == 138


def test_followers_are_told_once_and_killed_at_the_second() -> None:
    follower = (
        "import signal, time\\nsignal.signal(signal.SIGTERM, lambda *a: print('told', flush=True))\\n"
        "print('ready', flush=True)\\nwhile True: time.sleep(0.05)"
    )
    code = (
        "import subprocess\nwith listening('here'):\n"
        f" p = subprocess.Popen([sys.executable, '-c', \"{follower}\"], stdout=subprocess.PIPE, text=True)\n"
        " assert p.stdout.readline() == 'ready\\n'\n"
        " with deferred('this'), passed_on_to([p.pid]):\n"
        "  print('up', flush=True)\n"
        "  print(p.stdout.readline().strip(), p.pid, flush=True)\n"
        "  time.sleep(60)"
    )
    running = program(code)
    running.send_signal(signal.SIGTERM)
    assert running.stdout is not None
    told, pid = running.stdout.readline().split()
    assert told == "told"
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=30) == 143
    waited_for(lambda: not is_alive(int(pid)))


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split())[0] != "Z"
    except FileNotFoundError:
        return False


def test_programs_that_were_started_shielded_do_not_notice() -> None:
    with shielded():
        helper = subprocess.Popen(
            [sys.executable, "-c", "print('up', flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    assert helper.stdout is not None
    assert helper.stdout.readline() == b"up\n"
    for number in ALL:
        helper.send_signal(number)
    assert helper.communicate(b"go on\n", timeout=30) == (b"", None)
    assert helper.returncode == 0
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(ALL)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
def test_a_lost_terminal_is_no_error(tmp_path: Path) -> None:
    """The terminal closes: SIGHUP comes, and every later write to it would fail."""
    code = (
        "import os, signal, sys, time\nfrom difflab.signals import *\n"
        "with open(sys.argv[1], 'w') as log:\n"
        " try:\n"
        "  with listening('here'), deferred('this step'):\n"
        "   print('up', flush=True)\n"
        "   while not received(): time.sleep(0.01)\n"
        "   for _ in range(50): print('step', flush=True); sys.stderr.write('bar\\n'); time.sleep(0.01)\n"
        " except Stopped as stop: log.write(stop.number.name)\n"
    )
    master, terminal = os.openpty()
    path = tmp_path / "log"
    running = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n{code}", str(path)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    assert os.read(master, 100).startswith(b"up")
    os.close(master)
    running.wait(timeout=30)
    assert path.read_text() == "SIGHUP"


def test_the_first_of_two_kinds_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler's SIGTERM beside the SIGHUP of its shell: the status is that of the first."""
    monkeypatch.setattr(signals, "_ECHO_S", 60.0)

    def step() -> None:
        with listening("here"), deferred("this step"):
            kill(signal.SIGTERM)
            kill(signal.SIGHUP)
            assert received() == signal.SIGTERM

    with pytest.raises(Stopped) as caught:
        step()
    assert caught.value.number is signal.SIGTERM


def test_followers_that_hear_of_the_first_otherwise_are_killed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    with listening("here"), signals.passed_on_to([-11]), signals.passed_on_to([12, 13], first=False):
        monkeypatch.setattr(signals.os, "kill", lambda pid, number: sent.append((pid, number)))
        for number in (signal.SIGTERM, signal.SIGKILL):
            signals._listener._pass_on(number)  # type: ignore[union-attr]
    assert sent == [(-11, signal.SIGTERM), (-11, signal.SIGKILL), (12, signal.SIGKILL), (13, signal.SIGKILL)]


def test_signals_of_other_libraries_stop_nothing() -> None:
    code = (
        "signal.signal(signal.SIGALRM, lambda *_: None)\nwith listening('here'):\n"
        " print('up', flush=True)\n"
        " for _ in range(3): signal.raise_signal(signal.SIGALRM); time.sleep(2 * signals._ECHO_S)\n"
    )
    running = program(code)
    assert running.communicate(timeout=30) == ("", "")
    assert running.returncode == 0


def test_the_wakeup_descriptor_of_others_comes_back() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing)
    try:
        with listening("here"):
            pass
        assert signal.set_wakeup_fd(before) == writing
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_the_first_rank_speaks_for_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(other, raising=False)
    assert signals.speaks()
    monkeypatch.setenv(name, "0")
    assert signals.speaks()
    monkeypatch.setenv(name, "1")
    assert not signals.speaks()
