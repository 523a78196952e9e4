from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from difflab.tracking import row_file
from difflab.tracking.row_file import RowFile


@pytest.mark.parametrize("chunk", [1, 50, 1 << 20])
@pytest.mark.parametrize("shape", [(2, 3, 4), ()])
def test_rows_written_in_any_order_are_read_back_from_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(row_file, "CHUNK_BYTES", chunk)
    rows = np.random.default_rng(0).integers(0, 256, (7, *shape)).astype(np.uint8 if shape else np.int64)
    RowFile(tmp_path / "rows", 7, shape, rows.dtype).create()
    # Two writers, each with a share.
    for share in ([0, 2, 4, 6], [5, 1, 3]):
        RowFile(tmp_path / "rows", 7, shape, rows.dtype).write(share, rows[share])
    file = RowFile(tmp_path / "rows", 7, shape, rows.dtype)
    assert np.array_equal(file.read(2, 5), rows[2:5])
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        file.copy_into(archive, "arr_0")
        file.copy_into(archive, "arr_1")
    file.remove()
    assert not (tmp_path / "rows").exists()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert sorted(found.files) == ["arr_0", "arr_1"]
        assert found["arr_0"].dtype == rows.dtype
        assert np.array_equal(found["arr_0"], rows)


def test_rows_behind_the_end_are_left_out(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows", 2, (), np.dtype(np.int64))
    file.create()
    file.write([3, 1, 2], np.array([30, 10, 20]))
    assert file.read(0, 2).tolist() == [0, 10]
    assert file.path.stat().st_size == 16
