"""Ending a training in the middle of a callback, as a kill would: nothing after that point runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import lightning.pytorch as pl

from difflab.callbacks.checkpoint import Checkpoint
from difflab.callbacks.clock import train_step


class Killed(BaseException):
    """The end that a test put there."""


@contextlib.contextmanager
def killing(owner: type, method: str, step: int) -> Iterator[None]:
    """Inside, `owner.method` ends training at this step (or with this step as an argument) before it does anything."""
    original = getattr(owner, method)

    def killed(*arguments: Any, **named: Any) -> Any:
        modules = [argument for argument in arguments if isinstance(argument, pl.LightningModule)]
        if step in arguments or any(train_step(module) == step for module in modules):
            raise Killed
        return original(*arguments, **named)

    def nothing(*_: Any) -> None:
        """A kill runs no handler."""

    with mock.patch.object(owner, method, killed), mock.patch.object(Checkpoint, "on_exception", nothing):
        yield
