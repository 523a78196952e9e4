"""Runs for the tests of encoders."""

from clip_runs import small_clip
from tiny_runs import tiny_run

__all__ = ["small_clip", "tiny_run"]
