"""The processes of a sweep: each point is a separate process, a few at a time, and none outlives the sweep."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from difflab.signals import listening, passed_on_to

Grace = tuple[tuple[signal.Signals, float], ...]
GRACE: Grace = ((signal.SIGTERM, 120.0), (signal.SIGKILL, 0.0))
"""The signals sent to a process, and how long to wait in seconds before sending the next.

Training saves first. Not SIGINT, which children of a background job ignore.
"""


@dataclass(frozen=True)
class Job:
    """One `difflab <arguments>` to run; its output is appended to `log`."""

    arguments: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit status (negative: the signal that killed it) and how long it took."""

    status: int
    seconds: float


def run_jobs(
    jobs: Sequence[Job],
    at_once: int,
    lock: int,
    started: Callable[[int], None],
    ended: Callable[[int, Ended], None],
) -> None:
    """Runs the jobs, `at_once` of them at a time, and reports by index which one started (on any thread) and ended.

    lock: a descriptor that every process holds open. On a signal (which raises Stopped) or an error the processes are
    signalled to end, once, and waited for; they have their own process groups, which a terminal's Ctrl-C does not
    reach. A second signal kills them.
    """
    processes = _Processes(lock)

    def run(index: int) -> Ended | None:
        return processes.run(jobs[index], lambda: started(index))

    with (
        listening("difflab sweep"),
        passed_on_to(processes.groups, first=False),
        concurrent.futures.ThreadPoolExecutor(at_once) as pool,
    ):
        waiting = {pool.submit(run, index): index for index in range(len(jobs))}
        try:
            for future in concurrent.futures.as_completed(waiting):
                how = future.result()
                assert how is not None, "jobs are left out only if the sweep is ending"
                ended(waiting[future], how)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()
            raise


class _Processes:
    """The running processes."""

    def __init__(self, lock: int) -> None:
        self._lock = lock
        self.groups: list[int] = []
        self._alive: list[subprocess.Popen[bytes]] = []
        self._ending = False
        self._guard = threading.Lock()

    def run(self, job: Job, started: Callable[[], None]) -> Ended | None:
        """Starts a process and waits for it; None if the sweep is ending."""
        begin = time.monotonic()
        with self._guard, job.log.open("ab") as log:
            if self._ending:
                return None
            log.write(f"$ {shlex.join(['difflab', *job.arguments])}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [sys.executable, "-m", "difflab.cli", *job.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                pass_fds=(self._lock,),
            )
            self._alive.append(process)
            self.groups.append(-process.pid)
        started()
        status = process.wait()
        with self._guard:
            self._alive.remove(process)
            self.groups.remove(-process.pid)
        return Ended(status, time.monotonic() - begin)

    def end(self) -> None:
        """Ends every process, gracefully at first."""
        with self._guard:
            self._ending = True
            alive = list(self._alive)
        try:
            for process in alive:
                _report(process, GRACE[0][0])
            for process in alive:
                for (_, patience), (following, _) in itertools.pairwise(GRACE):
                    try:
                        process.wait(patience)
                    except subprocess.TimeoutExpired:
                        _report(process, following)
        except BaseException:
            for process in alive:
                _report(process, signal.SIGKILL)
            raise


def _report(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The whole group, because training on several devices starts a process for each.
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
