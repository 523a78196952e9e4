from __future__ import annotations

from pathlib import Path

import pytest

from difflab.tracking.csv_rows import read_csv

WHOLE = b"train/step,train/loss\n1,0.5\n2,\n"


@pytest.mark.parametrize("torn", [b"", b"3", b"3,0.2", b"\xff", b"\0\0\0"])
def test_a_torn_last_line_is_left_out(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(WHOLE + torn)
    assert read_csv(path) == [{"train/step": "1", "train/loss": "0.5"}, {"train/step": "2"}]


def test_lines_that_do_not_fit_the_header_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(WHOLE + b"3,0.2,9,9\n\0\0\n4,0.1\n")
    assert [row["train/step"] for row in read_csv(path)] == ["1", "2", "4"]
    path.write_bytes(b"")
    assert read_csv(path) == []
