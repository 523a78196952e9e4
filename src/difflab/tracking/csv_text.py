"""Tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence


def to_csv(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """One line of names, then one line per row; None is an empty cell."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([names, *rows])
    return buffer.getvalue()
