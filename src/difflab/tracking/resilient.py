"""Loggers that may fail: the run continues without them, and reports it once."""

from __future__ import annotations

from argparse import Namespace
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from difflab.console import say_and_log
from difflab.errors import UserError, in_one_line
from difflab.tracking.clock import Again, ClockedLogger, never

if TYPE_CHECKING:
    from PIL.Image import Image

LOG_SECONDS = 60.0
"""Time limit of a row, an image or a table before its logger is given up."""
ARTIFACT_SECONDS = 600.0
"""The same for a file, which is read, hashed and copied."""


class Call(Protocol):
    """How a logger is called: runs `function`, for at most `seconds` if that can be limited."""

    def __call__(self, function: Callable[[], Any], seconds: float) -> Any: ...


def directly(function: Callable[[], Any], seconds: float) -> Any:
    """Runs `function` here and now, without a time limit."""
    return function()


class ResilientLogger(ClockedLogger):
    """Passes everything to `logger`, whose exceptions end neither the run nor the other loggers.

    The first failure is reported on standard error and in log.txt, and the logger is not called again. Only a UserError
    is raised: the user can fix its cause.

    what: the name of the logger in messages, as in "W&B".
    kept: what the message says of the metrics, as in "metrics.csv continues".
    call: runs each call; `directly`, or a BoundedCaller for a logger that may hang.
    retries: rows that failed are kept in memory and passed again, in order, with each later one: for a file on a full
        disk. Rows that could never be written are counted at the end.
    """

    def __init__(
        self, logger: ClockedLogger, what: str, kept: str, call: Call = directly, *, retries: bool = False
    ) -> None:
        super().__init__()
        self.logger, self.what, self.kept, self.retries = logger, what, kept, retries
        self.failed = False
        self._call = call
        self._said = False
        self._waiting: deque[Callable[[], Any]] = deque()

    @property
    @override
    def name(self) -> str | None:
        return self.logger.name

    @property
    @override
    def version(self) -> int | str | None:
        return self.logger.version

    @property
    @override
    def save_dir(self) -> str | None:
        return self.logger.save_dir

    @override
    def follow(self, clock: Callable[[], dict[str, int]]) -> None:
        super().follow(clock)
        self.logger.follow(clock)

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        # Stamped now: a row that is written later still belongs to this step.
        row = self.stamped(metrics, step)
        self._do_in_order(lambda: self.logger.log_metrics(row, step))

    @override
    @rank_zero_only
    def resume_at(self, step: int, again: Again = never) -> None:
        self._do_in_order(lambda: self.logger.resume_at(step, again))

    @override
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self._try(lambda: self.logger.log_hyperparams(params, *args, **kwargs))

    @override
    def log_image(self, key: str, image: Image) -> None:
        self._try(lambda: self.logger.log_image(key, image))

    @override
    def log_table(self, key: str, columns: list[str], rows: list[list[Any]]) -> None:
        self._try(lambda: self.logger.log_table(key, columns, rows))

    @override
    def log_artifact(self, path: Path, name: str, kind: str, metadata: dict[str, Any]) -> None:
        self._try(lambda: self.logger.log_artifact(path, name, kind, metadata), ARTIFACT_SECONDS)

    @override
    def finalize(self, status: str) -> None:
        self._catch_up()
        if self._waiting:
            say_and_log(f"{self.what}: {len(self._waiting)} rows could not be written and are lost")
            self._waiting.clear()
        self._try(lambda: self.logger.finalize(status))

    def give_up(self, error: BaseException) -> None:
        """Reports, once, that the logger failed."""
        self.failed = True
        if not self._said:
            self._said = True
            reason = in_one_line(error)
            say_and_log(f"{self.what} failed ({reason}); {self.kept}")

    def _do_in_order(self, function: Callable[[], Any]) -> None:
        if self.retries:
            self._waiting.append(function)
            self._catch_up()
        else:
            self._try(function)

    def _catch_up(self) -> None:
        while self._waiting and self._try(self._waiting[0]):
            self._waiting.popleft()

    def _try(self, function: Callable[[], Any], seconds: float | None = None) -> bool:
        if self.failed and not self.retries:
            return False
        try:
            self._call(function, LOG_SECONDS if seconds is None else seconds)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a logger does, the run continues
            self.give_up(error)
            return False
        self.failed = False
        return True
