"""Programs forked off a Python that has imported what `difflab` needs: each starts at once, not after seconds.

Each is the first of a session of its own, with the signals, arguments, environment and files that it would have if it
had been started; further ranks, and processes that read data, it starts as ever.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from command_line import Done, end_with_the_test, surroundings

_IMPORTED = ("difflab.commands.train", "difflab.commands.training", "difflab.commands.sample")
_MESSAGE = 1 << 16


def start_warm_difflab(arguments: Sequence[str], cwd: Path, ignored: Collection[signal.Signals] = ()) -> Forked:
    """`difflab <arguments>` as `start_difflab` starts it, forked; it inherits these signals as ignored."""
    return _python_of_the_session().start(arguments, cwd, ignored)


def spawn_warm_difflab(arguments: Sequence[str], cwd: Path) -> Done:
    """The same, waited for."""
    program = start_warm_difflab(arguments, cwd)
    out, err = program.communicate(timeout=300)
    return Done(program.wait(0), out, err)


class WarmPython:
    """The server of such programs; ends when this object is closed or the process of the tests is gone."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment or {}
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen([sys.executable, __file__], stdin=theirs, env=self._surroundings())
        self._statuses: dict[int, int] = {}

    def start(self, arguments: Sequence[str], cwd: Path, ignored: Collection[signal.Signals] = ()) -> Forked:
        """`difflab <arguments>`, which does not outlive the test; it inherits these signals as ignored."""
        pipes = os.pipe(), os.pipe()
        request = {
            "arguments": list(arguments),
            "cwd": str(cwd),
            "environment": self._surroundings(),
            "ignored": [int(number) for number in ignored],
        }
        socket.send_fds(self._socket, [json.dumps(request).encode()], [writing for _, writing in pipes])
        for _, writing in pipes:
            os.close(writing)
        while (started := self._receive(120)) is None:
            pass
        program = Forked(self, started, *(reading for reading, _ in pipes))
        end_with_the_test(program)
        return program

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

    def _surroundings(self) -> dict[str, str]:
        return {**surroundings(), **self._environment}

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

    def __init__(self, python: WarmPython, pid: int, stdout: int, stderr: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._python = python
        self._streams = [os.fdopen(stream, "rb", 0) for stream in (stdout, stderr)]

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, behind: TracebackType | None
    ) -> None:
        for stream in self._streams:
            stream.close()
        self.wait(60)

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._python.status_of(self.pid, 0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        if self.returncode is None:
            self.returncode = self._python.status_of(self.pid, timeout)
        assert self.returncode is not None, "it goes on"
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """All that a program that ends within `timeout` s, and its children, wrote to stdout and stderr."""
        ends = time.monotonic() + timeout
        said = dict.fromkeys(self._streams, b"")
        with selectors.DefaultSelector() as selector:
            for stream in self._streams:
                selector.register(stream, selectors.EVENT_READ, stream)
            while selector.get_map():
                ready = selector.select(max(ends - time.monotonic(), 0))
                assert ready, f"it goes on after: {said}"
                for key, _ in ready:
                    some = key.data.read(_MESSAGE)
                    said[key.data] += some
                    if not some:
                        selector.unregister(key.data)
        self.wait(timeout)
        out, err = (written.decode() for written in said.values())
        return out, err

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


@functools.cache
def _python_of_the_session() -> WarmPython:
    return WarmPython()


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
                    message, files, _, _ = socket.recv_fds(line, _MESSAGE, 2)
                    if not message:
                        for pid in running:
                            os.killpg(pid, signal.SIGKILL)
                        return None
                    if not (pid := os.fork()):
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, before)
                        return _become(json.loads(message), files, (awake, wakes, line.fileno()))
                    for file in files:
                        os.close(file)
                    running.add(pid)
                    line.send(json.dumps([pid, None]).encode())
                    continue
                os.read(awake, _MESSAGE)
                while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    running.remove(ended[0])
                    line.send(json.dumps(ended).encode())


def _become(request: dict, files: Sequence[int], closed: Sequence[int]) -> list[str]:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in closed:
        os.close(descriptor)
    for number, descriptor in enumerate((nothing, *files)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Those of the server know what kind of files they were opened on.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(request["environment"])
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
