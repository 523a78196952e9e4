"""Base of the sources of `difflab data make`."""

from __future__ import annotations

from pathlib import Path

from difflab.config.base import Config


class SourceConfig(Config):
    """Base of the configurations of sources; fields are described by a string below them."""

    @property
    def reads(self) -> Path | None:
        """The folder of the source's files, where no shards may be written; None if it reads none."""
        return None

    @property
    def allowed_bad(self) -> float | None:
        """The largest fraction of bad files that may be left out; None if the first bad file ends the command."""
        return None
