"""Programs forked off a Python that has imported what `difflab` needs: each starts at once, not after seconds.

Each is the first of a session of its own, with the signals, arguments and files that it would have if it had been
started; further ranks, and processes that read data, it starts as ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from command_line import surroundings

_IMPORTED = ("difflab.commands.train", "difflab.commands.training", "difflab.commands.sample")
_MESSAGE = 1 << 16


class WarmPython:
    """The server of such programs; ends when this object is closed or the process of the tests is gone."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen([sys.executable, __file__], stdin=theirs, env=surroundings())
        self._statuses: dict[int, int] = {}

    def start(self, arguments: Sequence[str], cwd: Path, ignored: Collection[signal.Signals] = ()) -> Forked:
        """`difflab <arguments>`; it inherits these signals as ignored."""
        reading, writing = os.pipe()
        request = {"arguments": list(arguments), "cwd": str(cwd), "ignored": [int(number) for number in ignored]}
        socket.send_fds(self._socket, [json.dumps(request).encode()], [writing])
        os.close(writing)
        while (started := self._receive(120)) is None:
            pass
        return Forked(self, started, reading)

    def status_of(self, pid: int, timeout: float) -> int | None:
        """The exit status of a program, -n where signal n ended it; None where it still runs after `timeout` s."""
        ends = time.monotonic() + timeout
        while pid not in self._statuses:
            try:
                self._receive(max(ends - time.monotonic(), 0.001))
            except TimeoutError:
                return None
        return self._statuses[pid]

    def close(self) -> None:
        self._socket.close()
        self._server.wait(timeout=60)

    def _receive(self, timeout: float) -> int | None:
        """The number of a program that was started; None where one has ended, which is noted."""
        self._socket.settimeout(timeout)
        message = self._socket.recv(_MESSAGE)
        assert message, "the server has ended"
        pid, status = json.loads(message)
        if status is None:
            return pid
        self._statuses[pid] = os.waitstatus_to_exitcode(status)
        return None


class Forked:
    """One program; as subprocess.Popen has it."""

    def __init__(self, python: WarmPython, pid: int, stderr: int) -> None:
        self.pid = pid
        self._python, self._stderr = python, os.fdopen(stderr, "rb", 0)

    def poll(self) -> int | None:
        return self._python.status_of(self.pid, 0)

    def wait(self, timeout: float) -> int:
        status = self._python.status_of(self.pid, timeout)
        assert status is not None, "it goes on"
        return status

    def ended(self, timeout: float) -> tuple[int, str]:
        """The status of a program that ends within `timeout` s, and all that it and its children wrote to stderr."""
        ends = time.monotonic() + timeout
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stderr, selectors.EVENT_READ)
            while selector.select(max(ends - time.monotonic(), 0)):
                if not (some := self._stderr.read(_MESSAGE)):
                    return self.wait(timeout), said.decode()
                said += some
        raise AssertionError(f"it goes on after: {said.decode()}")

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def close(self) -> None:
        """End it and its children, if they are still there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._stderr.close()


def _serve(line: socket.socket) -> list[str] | None:
    """Fork a program for every request; returns its arguments in each of them, and None in the server at its end."""
    running: set[int] = set()
    awake, wakes = os.pipe()
    os.set_blocking(wakes, False)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        selector.register(awake, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is line:
                    message, files, _, _ = socket.recv_fds(line, _MESSAGE, 1)
                    if not message:
                        for pid in running:
                            os.killpg(pid, signal.SIGKILL)
                        return None
                    if not (pid := os.fork()):
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, before)
                        return _become(json.loads(message), files[0], (awake, wakes, line.fileno()))
                    os.close(files[0])
                    running.add(pid)
                    line.send(json.dumps([pid, None]).encode())
                    continue
                os.read(awake, _MESSAGE)
                while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    running.remove(ended[0])
                    line.send(json.dumps(ended).encode())


def _become(request: dict, stderr: int, closed: Sequence[int]) -> list[str]:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in closed:
        os.close(descriptor)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(stderr, 2)
    os.close(nothing)
    os.close(stderr)
    # Those of the server know what kind of files they were opened on.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(request["cwd"])
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    return request["arguments"]


if __name__ == "__main__":
    import importlib

    for module in _IMPORTED:
        importlib.import_module(module)
    from difflab.cli import main

    arguments = _serve(socket.socket(fileno=os.dup(0)))
    if arguments is None:
        # To take torch down module by module takes seconds.
        os._exit(0)
    # A further rank is started with the arguments of the first.
    sys.argv = ["difflab", *arguments]
    sys.exit(main(arguments))
