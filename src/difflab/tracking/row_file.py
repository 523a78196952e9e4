"""An array of many rows that several processes write in any order, without holding it in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from difflab.machine import machine_errors

CHUNK_BYTES = 1 << 24


class RowFile:
    """n rows of one shape and dtype in a file: [n, *shape]. `create` it in one process, then `write` from any."""

    def __init__(self, path: Path, n: int, shape: Sequence[int], dtype: np.dtype) -> None:
        self.path, self.n, self.shape, self.dtype = path, n, tuple(shape), dtype
        self._row_bytes = int(np.prod(self.shape, dtype=np.int64)) * dtype.itemsize

    def create(self) -> None:
        """Creates the file with all rows zero. Raises MachineError, as on a full disk."""
        with machine_errors(self.path), self.path.open("wb") as file:
            file.truncate(self.n * self._row_bytes)

    def write(self, indices: Sequence[int], rows: np.ndarray) -> None:
        """Writes rows [len(indices), *shape] to their positions; those beyond the end are ignored."""
        kept = [(index, row) for index, row in zip(indices, rows, strict=True) if index < self.n]
        if not kept:
            return
        with machine_errors(self.path), self.path.open("r+b") as file:
            for index, row in kept:
                file.seek(index * self._row_bytes)
                file.write(np.ascontiguousarray(row, dtype=self.dtype).tobytes())

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows [stop - start, *shape]."""
        with machine_errors(self.path), self.path.open("rb") as file:
            file.seek(start * self._row_bytes)
            data = file.read((stop - start) * self._row_bytes)
        return np.frombuffer(data, dtype=self.dtype).reshape(stop - start, *self.shape)

    def copy_into(self, archive: zipfile.ZipFile, name: str) -> None:
        """Copies all rows into an archive as the member `name`.npy, which `np.load` reads, a chunk at a time."""
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, {**header, "shape": (self.n, *self.shape)})
            rows = max(CHUNK_BYTES // max(self._row_bytes, 1), 1)
            for start in range(0, self.n, rows):
                member.write(self.read(start, min(start + rows, self.n)).tobytes())

    def remove(self) -> None:
        """Deletes the file."""
        self.path.unlink(missing_ok=True)
