"""Trained runs for the commands that take one."""

from clip_runs import small_clip
from tiny_runs import class_run, own_run, tiny_run

__all__ = ["class_run", "own_run", "small_clip", "tiny_run"]
