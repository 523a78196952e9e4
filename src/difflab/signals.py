"""Stopping on the signals of terminals and schedulers, handled from the first line of a command to its last.

Python runs handlers between two bytecodes of the main thread, which may wait for minutes in a collective or a compiler.
A separate thread therefore reads the signals as they arrive: it responds immediately, passes them on to the processes
started by this one, and ends everything at the second signal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Collection, Iterator
from types import FrameType
from typing import Any, NoReturn

from difflab.console import say_on_stderr

HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
OF_SCHEDULERS = (signal.SIGTERM, signal.SIGUSR1)
"""The signal of a scheduler before preemption, after which it may start the command again."""
TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h."""
LAUNCHED_BY = "DIFFLAB_LAUNCHED_BY"
"""The process that started this one as a further rank; only that process is signalled, and passes signals on."""

_ECHO_S = 0.1
"""`timeout`, a closing terminal and systemd send two signals in a row that count as one."""
_ANSWER_S = 1.0
"""Seconds after which a busy main thread that has not stopped yet is reported to have received the signal."""
_AT_THE_EDGES = "the last lines"

# Not for programs started by this one.
_first = int(os.environ.pop(LAUNCHED_BY, "0"))


class Stopped(KeyboardInterrupt):
    """A signal requests this program to stop. Notes (`add_note`) are shown to the user: what is kept."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = signal.Signals(number)

    @property
    def status(self) -> int:
        """The exit status of a program ended by a signal."""
        return 128 + self.number


@contextlib.contextmanager
def listening(speaker: str, *, again: Collection[int] = (), at_once: bool = True) -> Iterator[None]:
    """Inside the context, the first of HEEDED raises Stopped in the main thread, the second ends the process at once.

    During an import the first ends the process at once, too, as extension modules turn an exception into another one,
    or into an abort.

    speaker: the prefix of lines. again: signals after which a scheduler may start the command again (TRY_AGAIN).
    at_once: False if signals are only recorded except inside `interruptible`, so that none is raised where it is not
    caught. A signal that is ignored (nohup, a background job) stays ignored.
    Does nothing in other threads, and inside another `listening`.
    """
    global _listener
    if _listener is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _listener = _Listener(speaker, again)
    try:
        with _listener, interruptible() if at_once else contextlib.nullcontext():
            yield
    finally:
        _listener = None


@contextlib.contextmanager
def deferred(what: str) -> Iterator[None]:
    """Inside the context, the first signal is only recorded (`received`), with a message that `what` is finished first.

    Raises Stopped at the end for a signal received inside.
    """
    with listening("difflab"):
        assert _listener is not None, "signals only reach the main thread"
        with _listener.finishing(what):
            yield
        if _listener.received:
            raise Stopped(_listener.received)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside `deferred`, or if `listening` only records them, makes signals raise Stopped, including an earlier one.

    For long work that leaves nothing inconsistent. Does nothing elsewhere.
    """
    if _listener is None or _listener.finishes is None:
        yield
        return
    with _listener.finishing(None):
        if _listener.received:
            raise Stopped(_listener.received)
        yield


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Shields programs started inside, on this thread, from the signals handled here.

    For helpers that must outlive this process's saving: a scheduler signals every process of a job, a terminal every
    one of the group. They end on request, or when this process is gone.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def passed_on_to(pids: Collection[int], *, first: bool = True) -> Iterator[None]:
    """Inside the context, passes the first signal on to these processes, and kills them at the second.

    pids: may change inside; -n is the process group n. first: False if they learn of the first signal otherwise.
    """
    if _listener is None:
        yield
        return
    _listener.followers.append((pids, first))
    try:
        yield
    finally:
        _listener.followers = [(others, told) for others, told in _listener.followers if others is not pids]


def received() -> int:
    """The first signal since listening began; 0 if there was none."""
    return 0 if _listener is None else _listener.received


def unanswered() -> int:
    """A signal that should have raised Stopped, if the main thread waits in C and runs no handler; else 0."""
    if _listener is None or _listener.finishes is not None or _listener.received:
        return 0
    return _listener.heard


def status_of(number: int) -> int:
    """The exit status of this program when stopped by a signal."""
    again = () if _listener is None else _listener.again
    return TRY_AGAIN if number in again else Stopped(number).status


def leave(number: int) -> NoReturn:
    """Ends this process at once, from any thread, with the message of the first signal: there is nothing to save."""
    announce(f"{signal.Signals(number).name}: stopped")
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        sys.stdout.flush()
    os._exit(status_of(number))


def announce(text: str, *, anyway: bool = False) -> None:
    """Prints one line on standard error from any thread, on the rank that speaks for all; on others if `anyway`."""
    if not (anyway or speaks()):
        return
    speaker = "difflab" if _listener is None else _listener.speaker
    # After a progress bar, which does not end its line.
    begin = "\n" if sys.stderr.isatty() else ""
    say_on_stderr(f"{begin}{speaker}: {text}")


def listen_again() -> None:
    """Restores the handlers after a library has replaced them."""
    if _listener is not None:
        _listener.install()


def follows_another() -> bool:
    """Whether this process was started by another one as one of its ranks."""
    return _first != 0


def first_is_gone() -> bool:
    """Whether the process that started this rank has ended, perhaps before this one's first line."""
    return os.getppid() != _first


def speaks() -> bool:
    """Whether this process speaks for all ranks, according to its environment."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


class _Listener:
    """Handlers and a thread; `received` is the first signal that a handler ran for, `heard` the first that arrived,
    `finishes` what is finished before stopping."""

    def __init__(self, speaker: str, again: Collection[int]) -> None:
        self.speaker, self.again = speaker, again
        self.received = self.heard = 0
        self.finishes: str | None = _AT_THE_EDGES
        self.followers: list[tuple[Collection[int], bool]] = []
        self._raised = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Listener:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._before = {
            number: handler
            for number in HEEDED
            if (handler := signal.getsignal(number)) is not None and handler is not signal.SIG_IGN
        }
        self.install()
        if follows_another():
            # Started with these blocked, so that none could end it before the handlers were installed.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)
        return self

    def __exit__(self, *error: object) -> None:
        self.finishes = "the end"
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.write(self._writing, b"\0")
        self._thread.join()
        os.close(self._reading)
        os.close(self._writing)

    def install(self) -> None:
        for number in self._before:
            signal.signal(number, self._heed)

    @contextlib.contextmanager
    def finishing(self, what: str | None) -> Iterator[None]:
        before, self.finishes = self.finishes, what
        try:
            yield
        finally:
            self.finishes = before

    def _heed(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave_lost_terminal()
        if self.received:
            return
        self.received = number
        if self.finishes is None:
            if not any(pids for pids, _ in self.followers) and _imports(frame):
                leave(number)
            self._raised.set()
            raise Stopped(number)

    def _watch(self) -> None:
        first = self._next()
        if not first:
            return
        self.heard = first
        ends = time.monotonic() + _ECHO_S
        while (echo := self._next(ends - time.monotonic())) is not None:
            if not echo:
                return
        self._pass_on(first)
        if self.finishes is not None:
            announce(f"{signal.Signals(first).name}: stopping after {self.finishes} (again: at once)")
            again = self._next()
        else:
            again = self._next(_ANSWER_S)
            if again is None and not self._raised.is_set():
                announce(f"{signal.Signals(first).name}: stopping as soon as possible (again: at once)")
            if again is None:
                again = self._next()
        # A process started by another one ends with it.
        while again and follows_another():
            again = self._next()
        if again:
            self._pass_on(signal.SIGKILL)
            announce(f"{signal.Signals(again).name}: stopped at once")
            os._exit(128 + again)

    def _next(self, timeout: float | None = None) -> int | None:
        """The next handled signal; 0 if listening ends, None after `timeout` seconds without one."""
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if ends is None else max(ends - time.monotonic(), 0.0)
            if not select.select([self._reading], [], [], left)[0]:
                return None
            number = os.read(self._reading, 1)[0]
            if number == 0 or number in self._before:
                return number

    def _pass_on(self, number: int) -> None:
        for pids, first in self.followers:
            for pid in list(pids) if first or number == signal.SIGKILL else []:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


_listener: _Listener | None = None


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _leave_lost_terminal() -> None:
    """Redirects output from a lost terminal to nowhere, as a failing write would come before saving."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            status = os.fstat(descriptor)
            is_device = stat.S_ISCHR(status.st_mode) and status.st_rdev != os.fstat(nowhere).st_rdev
            if is_device and not os.isatty(descriptor):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)
