"""Where shards are made from: each source has a configuration and numbered samples."""

from difflab.data.sources.base import Source
from difflab.data.sources.registry import SOURCES, SourceKind, find_source

__all__ = ["SOURCES", "Source", "SourceKind", "find_source"]
