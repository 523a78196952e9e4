"""Loads the weights of a model's frozen parts from their files."""

from __future__ import annotations

from torch import nn

from difflab.errors import UserError
from difflab.interop.keymap import refuse_misfit, shapes_of
from difflab.interop.unpickle import read_tensors
from difflab.networks.frozen import Frozen
from difflab.parts.finding import find
from difflab.parts.selection import frozen_parts, is_inside


def load_frozen(module: nn.Module) -> None:
    """Fills every frozen part of a model, sharing modules that this process has already loaded.

    Raises UserError, in one line, if the weights are not found, differ from those recorded, or do not fit.
    """
    for name, part in frozen_parts(module).items():
        if part.is_loaded:
            continue
        try:
            _load(part)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error


def _load(part: Frozen) -> None:
    path, sha256 = find(part.source)
    if part.shares(sha256):
        return
    module = part.empty()
    state = {key: tensor for key, tensor in read_tensors(path).items() if not is_inside(key, part.unused)}
    refuse_misfit(state, shapes_of(module.state_dict()), str(path))
    module.load_state_dict(state, strict=True)
    part.fill(module, sha256)
