"""Temporarily puts networks in evaluation mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """A context in which the modules are in evaluation mode; afterwards every submodule's mode is restored.

    Frozen parts are always in evaluation mode and stay there.
    """
    training = [part for module in modules for part in module.modules() if part.training]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
