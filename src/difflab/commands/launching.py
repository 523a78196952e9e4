"""The ranks of one command on one machine: started here, watched, and ended together.

Lightning's own launcher kills this process, without a word, when another rank ends with an error; so ranks are started
as `torchrun` starts them, and Lightning finds them there (LOCAL_RANK is set).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

from difflab.environment import environment
from difflab.errors import LostProcessError, UserError
from difflab.signals import (
    LAUNCHED_BY,
    Stopped,
    announce,
    deferred,
    first_is_gone,
    follows_another,
    leave,
    passed_on_to,
    received,
    shielded,
    unanswered,
)

_TURN_S = 0.1
_ERROR_S = 3.0
"""How long after an error a rank is waited for whose end may have caused it."""
_END_S = 30.0
"""How long the ranks have to end by themselves once this process has ended its work."""
_STUCK_S = 10.0
"""How long this process may go on after another rank ended: some collectives wait for ever."""
_REPORTED_AFTER_S = 1.0
"""The same where both were told to stop before there was anything to save."""


class Ranks:
    """The processes that this one has started: the ranks after `first` on this machine."""

    def __init__(self, first: int = 0) -> None:
        self.pids: list[int] = []
        self._first = first
        self._processes: list[subprocess.Popen[bytes]] = []
        self._verdict: str | None = None

    def start(self, number: int) -> None:
        """Start so many, which run this command line."""
        for local in range(1, number + 1):
            theirs = {**os.environ, "LOCAL_RANK": str(local), LAUNCHED_BY: str(os.getpid())}
            # Blocked until their handlers are there: a signal to the whole group must not end them before. And one to
            # this process, which other threads take in, must not come between a start and the note of it.
            with deferred("the start of the other ranks"), shielded():
                self._processes.append(subprocess.Popen(_this_command(), env=theirs))
                self.pids.append(self._processes[-1].pid)

    def lost(self) -> str | None:
        """What became of a rank that ended with an error or had to be ended; None where all is well."""
        if self._verdict is not None:
            return self._verdict
        for rank, process in enumerate(self._processes, start=self._first + 1):
            status = process.poll()
            if status:
                return f"rank {rank} ended ({_named(status)}); the others are ended too"
        return None

    def end_silent(self, rank: int, verdict: str) -> bool:
        """Kill a rank that gives no sign of life; `verdict` is why. False where it is not of this machine."""
        local = rank - self._first - 1
        if not 0 <= local < len(self._processes):
            return False
        self._verdict = verdict
        self._processes[local].kill()
        return True

    def kill(self) -> None:
        """End all at once."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def have_ended(self, within: float) -> bool:
        """Whether all end within so many seconds."""
        ends = time.monotonic() + within
        for process in self._processes:
            try:
                process.wait(max(ends - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                return False
        return True


@contextlib.contextmanager
def launched(per_node: int, nodes: int = 1, *, by_others: bool = False) -> Iterator[Ranks]:
    """Start `per_node - 1` processes that run this same command line, unless this is one of them.

    by_others: torchrun or srun has started all of them.

    Inside, LOCAL_RANK, NODE_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set as torchrun sets them. None of the
    processes outlives the block, nor this process. An error inside that another rank's end explains becomes
    LostProcessError.
    """
    if by_others or "LOCAL_RANK" in os.environ or per_node * nodes == 1:
        with _following():
            yield Ranks()
        return
    variables = _rendezvous(per_node, nodes)
    ranks = Ranks(first=int(variables["NODE_RANK"]) * per_node)
    with environment(variables), passed_on_to(ranks.pids), _watched(ranks):
        try:
            ranks.start(per_node - 1)
            yield ranks
            ranks.have_ended(within=_END_S)
        except Exception as error:  # noqa: BLE001 - raised again, unless another rank is behind it
            _explain(error, ranks)
        except BaseException:
            # All of them were told to stop, or agreed to.
            ranks.have_ended(within=_END_S)
            raise
        finally:
            ranks.kill()


def _explain(error: Exception, ranks: Ranks) -> NoReturn:
    ends = time.monotonic() + _ERROR_S
    while ranks.lost() is None and not ranks.have_ended(within=_TURN_S) and time.monotonic() < ends:
        pass
    lost = ranks.lost()
    if received():
        raise Stopped(received()) from None
    if lost is None or isinstance(error, UserError):
        raise error
    raise LostProcessError(lost) from None


@contextlib.contextmanager
def _watched(ranks: Ranks) -> Iterator[None]:
    """Inside, this process ends with one line where it hangs after another rank has ended."""
    over = threading.Event()

    def watch() -> None:
        since: float | None = None
        while not over.wait(_TURN_S):
            lost = ranks.lost()
            since = None if lost is None else since or time.monotonic()
            if lost is None or since is None:
                continue
            if (number := unanswered()) and time.monotonic() - since > _REPORTED_AFTER_S:
                # They were told to stop, and this process waits for them to meet.
                ranks.kill()
                leave(number)
            if time.monotonic() - since > _STUCK_S:
                announce(lost)
                ranks.kill()
                os._exit(1)

    thread = threading.Thread(target=watch, name="ranks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _following() -> Iterator[None]:
    """An error inside is left to the process that started this one, if that is how it came to be."""
    if not follows_another():
        yield
        return
    try:
        yield
    except UserError:
        raise
    except Exception:
        if received():
            raise Stopped(received()) from None
        # The end of another rank, of which the first process knows: it ends this one, too.
        time.sleep(_ERROR_S + 1)
        raise


def end_with_the_first() -> None:
    """From now on this process, a further rank, ends when the one that started it does, or has already."""

    def watch() -> None:
        while not first_is_gone():
            time.sleep(_TURN_S)
        if os.environ["LOCAL_RANK"] == "1":
            announce(f"rank {int(os.environ['NODE_RANK'])} ended; the others are ended too", anyway=True)
        os._exit(1)

    threading.Thread(target=watch, name="first rank", daemon=True).start()


def _this_command() -> list[str]:
    return [sys.executable, "-m", "difflab.cli", *sys.argv[1:]]


def _rendezvous(per_node: int, nodes: int) -> dict[str, str]:
    node = os.environ.get("NODE_RANK", "0")
    return {
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": os.environ.get("MASTER_PORT") or str(_free_port()),
        "NODE_RANK": node,
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(per_node * nodes),
    }


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return one.getsockname()[1]


def _named(status: int) -> str:
    if status > 0:
        return f"exit status {status}"
    return f"signal {-status}, {signal.Signals(-status).name}"
