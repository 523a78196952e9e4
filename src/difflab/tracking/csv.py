"""metrics.csv: a row per logging call, appended on resume, whole after any kill."""

from __future__ import annotations

import contextlib
import csv
import io
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from difflab.errors import UserError
from difflab.files import replacing
from difflab.tracking.clock import STEP, ClockedLogger

Row = dict[str, str]


class CSVLogger(ClockedLogger):
    """Write metrics to the file `path`. The first column is `train/step`; an empty cell means not logged in that row.

    Every row reaches the operating system before log_metrics returns. A last line that a kill tore is dropped when the
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
        """Append one row; values are numbers or strings."""
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
            # Opened again, the file loses the torn line; this handle would write it again.
            self._discard()
            raise

    @override
    @rank_zero_only
    def resume_at(self, step: int) -> None:
        """Drop rows after `step`; starting over (step 0) moves the old file aside as metrics.<n>.csv instead."""
        if not self.path.exists():
            return
        self._open()
        rows = self._read()
        kept = [row for row in rows if not row.get(STEP) or int(row[STEP]) <= step]
        if len(kept) == len(rows):
            return
        if step == 0:
            self._close()
            self.path.rename(_free_name(self.path))
        else:
            self._rewrite(kept, self._columns)

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
        self._columns = [STEP]
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            self._rewrite([], self._columns)
            return
        if whole != content:
            with replacing(self.path) as temporary:
                temporary.write_bytes(whole)
        self._columns = next(csv.reader(io.StringIO(whole.decode("utf-8"))))
        if STEP not in self._columns:
            raise UserError(f"{self.path} has no column {STEP!r}; move the file away, difflab did not write it")

    def _read(self) -> list[Row]:
        return read_csv(self.path)

    def _rewrite(self, rows: list[Row], columns: list[str]) -> None:
        self._close()
        with replacing(self.path) as temporary:
            temporary.write_text(_lines([{c: c for c in columns}, *rows], columns), encoding="utf-8", newline="")
        self._columns = columns


def read_csv(path: Path | str) -> list[Row]:
    """The rows of a metrics.csv; cells that were not logged are left out."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [{name: cell for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def _lines(rows: Iterable[Mapping[str, str]], columns: list[str]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writerows(rows)
    return buffer.getvalue()


def _cell(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    # A line break inside a cell would make a torn line look whole.
    return repr(value) if isinstance(value, float) else str(value).replace("\n", " ")


def _free_name(path: Path) -> Path:
    n = 1
    while (candidate := path.with_name(f"{path.stem}.{n}{path.suffix}")).exists():
        n += 1
    return candidate
