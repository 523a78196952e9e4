"""Trained runs for the commands that take one."""

from tiny_runs import class_run, own_run, tiny_run

__all__ = ["class_run", "own_run", "tiny_run"]
