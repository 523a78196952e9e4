"""metrics.csv: one row per logging call, appended to on resume, valid after any kill."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from difflab.files import keep_older, replacing
from difflab.tracking.clock import STEP, Again, ClockedLogger, never
from difflab.tracking.config import CSVConfig
from difflab.tracking.context import LoggerContext
from difflab.tracking.csv_rows import Row, parse, read_csv
from difflab.tracking.resilient import ResilientLogger

log = logging.getLogger(__name__)


class CSVLogger(ClockedLogger):
    """Writes metrics to the file `path`. The first column is `train/step`; an empty cell means not logged in that row.

    Every row reaches the operating system before log_metrics returns. A last line torn by a kill is dropped when the
    file is opened again. A new metric rewrites the file with one more column.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.path = Path(path)
        self._columns: list[str] = []
        self._file: IO[str] | None = None

    @property
    @override
    def name(self) -> str:
        return "csv"

    @property
    @override
    def version(self) -> str:
        return ""

    @property
    @override
    def save_dir(self) -> str:
        return str(self.path.parent)

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Appends one row; values are numbers or strings."""
        row = {name: _cell(value) for name, value in self.stamped(metrics, step).items()}
        file = self._open()
        new = [name for name in row if name not in self._columns]
        if new:
            self._rewrite(self._read(), [*self._columns, *new])
            file = self._open()
        try:
            file.write(_lines([row], self._columns))
            file.flush()
        except OSError:
            # Reopened, the file loses the torn line; this handle would write it again.
            self._discard()
            raise

    @override
    @rank_zero_only
    def resume_at(self, step: int, again: Again = never) -> None:
        """Drops rows after `step`, and those of `step` for which `again` is true; starting over (step 0) keeps the old
        file as metrics.<n>.csv."""
        if not self.path.exists():
            return
        self._open()
        rows = self._read()
        kept = [row for row in rows if _stays(row, step, again)]
        if len(kept) == len(rows):
            return
        if step == 0:
            keep_older(self.path)
        self._rewrite(kept, self._columns if step else [STEP])

    @override
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run directory keeps the configuration in config.yaml, so nothing is written here."""

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._close()

    def _open(self) -> IO[str]:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._repair()
            self._file = self.path.open("a", encoding="utf-8", newline="")
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self._close()
        self._file = None

    def _repair(self) -> None:
        content = self.path.read_bytes() if self.path.exists() else b""
        table = parse(content, self.path)
        self._columns = table.columns
        if table.damaged:
            log.warning("%s: dropped %d damaged lines that a crash left", self.path, table.damaged)
        if table.damaged or not table.whole:
            self._rewrite(table.rows, table.columns)

    def _read(self) -> list[Row]:
        return read_csv(self.path)

    def _rewrite(self, rows: list[Row], columns: list[str]) -> None:
        self._close()
        with replacing(self.path) as temporary:
            temporary.write_text(_lines([{c: c for c in columns}, *rows], columns), encoding="utf-8", newline="")
        self._columns = columns


def _stays(row: Row, step: int, again: Again) -> bool:
    logged = int(row.get(STEP, "-1"))
    return logged < step or (logged == step and not again(row))


def _lines(rows: Iterable[Mapping[str, str]], columns: list[str]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writerows(rows)
    return buffer.getvalue()


def _cell(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    # A line break inside a cell would make a torn line look whole.
    return repr(value) if isinstance(value, float) else " ".join(str(value).splitlines()).replace("\0", "")


@contextlib.contextmanager
def opened(config: CSVConfig, context: LoggerContext) -> Iterator[ResilientLogger]:
    """metrics.csv of a run directory; if the machine refuses, training continues."""
    path = context.run.metrics
    yield ResilientLogger(CSVLogger(path), str(path), "its rows are kept and tried again", retries=True)
