"""The one place outside a run directory where difflab writes: its cache."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """`$DIFFLAB_CACHE`, or `~/.cache/difflab`; created at the first write."""
    configured = os.environ.get("DIFFLAB_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "difflab"
