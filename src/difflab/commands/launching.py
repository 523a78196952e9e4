"""The ranks of one command on one machine: started here, monitored, and ended together.

Lightning's own launcher silently kills this process when another rank ends with an error, so ranks are started here
as by `torchrun`, where Lightning finds them (LOCAL_RANK is set).
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
"""Seconds to wait after an error for the end of a rank that may have caused it."""
_END_S = 30.0
"""Seconds that the ranks have to end by themselves after this process has finished its work."""
_STUCK_S = 10.0
"""Seconds that this process may continue after another rank ended: some collectives wait forever."""
_REPORTED_AFTER_S = 1.0
"""The same if both were signalled to stop before there was anything to save."""


class Ranks:
    """The processes started by this one: the ranks after `first` on this machine."""

    def __init__(self, first: int = 0) -> None:
        self.pids: list[int] = []
        self._first = first
        self._processes: list[subprocess.Popen[bytes]] = []
        self._verdict: str | None = None

    def start(self, number: int) -> None:
        """Starts `number` processes that run this command line."""
        for local in range(1, number + 1):
            theirs = {**os.environ, "LOCAL_RANK": str(local), LAUNCHED_BY: str(os.getpid())}
            # Blocked until their handlers are installed: a signal to the whole group must not end them before. A signal
            # to this process, which other threads receive, must not arrive between a start and its registration.
            with deferred("the start of the other ranks"), shielded():
                self._processes.append(subprocess.Popen(_this_command(), env=theirs))
                self.pids.append(self._processes[-1].pid)

    def lost(self) -> str | None:
        """How a rank ended with an error or was killed; None if there is none."""
        if self._verdict is not None:
            return self._verdict
        for rank, process in enumerate(self._processes, start=self._first + 1):
            status = process.poll()
            if status:
                return f"rank {rank} ended ({_named(status)}); the others are ended too"
        return None

    def end_silent(self, rank: int, verdict: str) -> bool:
        """Kills an unresponsive rank; `verdict` is the reason. False if it is not on this machine."""
        local = rank - self._first - 1
        if not 0 <= local < len(self._processes):
            return False
        self._verdict = verdict
        self._processes[local].kill()
        return True

    def kill(self) -> None:
        """Kills all of them immediately."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def have_ended(self, within: float) -> bool:
        """Whether all end within this many seconds."""
        ends = time.monotonic() + within
        for process in self._processes:
            try:
                process.wait(max(ends - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                return False
        return True


@contextlib.contextmanager
def launched(per_node: int, nodes: int = 1, *, by_others: bool = False) -> Iterator[Ranks]:
    """Starts `per_node - 1` processes that run this same command line, unless this is one of them.

    by_others: torchrun or srun has already started all of them.

    Inside the context, LOCAL_RANK, NODE_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set as by torchrun. The
    processes outlive neither the context nor this process. An error inside that is explained by the end of another rank
    becomes LostProcessError.
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
            # All of them were signalled to stop, or agreed to.
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
    """Inside the context, this process ends with one line if it hangs after another rank has ended."""
    over = threading.Event()

    def watch() -> None:
        since: float | None = None
        while not over.wait(_TURN_S):
            lost = ranks.lost()
            since = None if lost is None else since or time.monotonic()
            if lost is None or since is None:
                continue
            if (number := unanswered()) and time.monotonic() - since > _REPORTED_AFTER_S:
                # They were signalled to stop, and this process waits to meet them.
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
    """Leaves the report of an error inside to the process that started this one, if there is one."""
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
        # The first process knows of the end of another rank, and ends this one, too.
        time.sleep(_ERROR_S + 1)
        raise


def end_with_the_first() -> None:
    """From now on this process, a further rank, ends with the process that started it, which may already have ended."""

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
