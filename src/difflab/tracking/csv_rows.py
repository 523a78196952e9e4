"""Reading a metrics.csv back, also while it is written and after a kill."""

from __future__ import annotations

import csv
import io
from pathlib import Path

Row = dict[str, str]


def read_csv(path: Path | str) -> list[Row]:
    """The rows of a metrics.csv; cells that were not logged are left out.

    A last line that was torn is left out, as the logger drops it when it goes on, and so is a line with more cells
    than the header has.
    """
    content = Path(path).read_bytes()
    # What a file system leaves of a block that was never written.
    whole = content[: content.rfind(b"\n") + 1].replace(b"\0", b"")
    rows = csv.DictReader(io.StringIO(whole.decode("utf-8", errors="replace"), newline=""))
    return [{name: cell for name, cell in row.items() if cell} for row in rows if None not in row]
