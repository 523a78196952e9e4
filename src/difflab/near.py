"""What a path that does not exist was probably meant to be."""

from __future__ import annotations

import difflib
from pathlib import Path


def near_path(path: Path) -> str:
    """Returns `; did you mean PATH?` for an existing path that is spelled alike but for one name, else "".

    Only the folder in which the first missing name would be is listed.
    """
    missing = path
    while missing.parent != missing and not missing.parent.exists():
        missing = missing.parent
    if not missing.parent.is_dir():
        return ""
    try:
        names = [entry.name for entry in missing.parent.iterdir()]
    except OSError:
        return ""
    rest = path.relative_to(missing)
    close = (missing.with_name(name) / rest for name in difflib.get_close_matches(missing.name, names, n=3))
    return next((f"; did you mean {candidate}?" for candidate in close if candidate.exists()), "")
