"""Calls to a library that may hang: one after another in a separate thread, each with a time limit."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any


class CallTimeoutError(TimeoutError):
    """A call did not return in time; it may still be running."""


class BoundedCaller:
    """Runs functions in one background thread, in order.

    The thread never keeps the interpreter alive. After a call that did not return no further one is made: it would only
    wait behind that one.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.stuck = False
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], _Answer] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __call__(self, function: Callable[[], Any], seconds: float) -> Any:
        """Returns the result of `function`. Its exceptions are raised here; SystemExit, too, as a RuntimeError.

        Raises CallTimeoutError after `seconds`, and at once if an earlier call is stuck.
        """
        if self.stuck:
            raise CallTimeoutError(f"{self.what} is stuck")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"{self.what} calls", daemon=True)
            self._thread.start()
        answer = _Answer()
        self._calls.put((function, answer))
        if not answer.ready.wait(seconds):
            self.stuck = True
            raise CallTimeoutError(f"{self.what} did not answer in {seconds:g} s")
        if isinstance(answer.error, Exception):
            raise answer.error
        if answer.error is not None:
            raise RuntimeError(f"{self.what} wanted to end the program: {answer.error!r}") from answer.error
        return answer.value

    def close(self) -> None:
        """Ends the thread when its calls are done; does not wait."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            function, answer = call
            try:
                answer.value = function()
            except BaseException as error:  # noqa: BLE001 - passed to the calling thread
                answer.error = error
            answer.ready.set()


class _Answer:
    def __init__(self) -> None:
        self.ready = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None
