"""What every source of `difflab data make` has in common."""

from __future__ import annotations

from pathlib import Path

from difflab.config.base import Config


class SourceConfig(Config):
    """Base of the configurations of sources; fields have their description as a string below them."""

    @property
    def reads(self) -> Path | None:
        """Where the files of the source lie, in which no shards are put; None where it reads none."""
        return None

    @property
    def allowed_bad(self) -> float | None:
        """The largest fraction of bad files that may be left out; None where the first bad file ends the command."""
        return None
