"""Block specifications -> modules: the place where a new kind of block plugs into the UNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from torch import nn

M = TypeVar("M", bound=type[nn.Module])


class BlockSpec(Protocol):
    """A frozen dataclass that describes one block completely.

    name:       the group of the state dict it lives in (`encoder.0.<name>.1.conv1.weight`).
    checkpoint: recompute the block in the backward pass.
    reads:      fields of `Conditioning` that the block reads, besides the time embedding.

    The module built from it has `forward(h, emb, cond, context) -> h`: features [B, C, H, W], the activated time
    embedding [B, E], all that the network is told, and its tokens [B, L, D] ready to be attended to. A transformer with
    self- and cross-attention is one such block; what goes between the two (GLIGEN's gate) is a field of its
    specification and reads `cond.grounding`.
    """

    @property
    def name(self) -> str: ...

    @property
    def checkpoint(self) -> bool: ...

    @property
    def reads(self) -> tuple[str, ...]: ...


_BUILDERS: dict[type, Callable[[Any], nn.Module]] = {}


def register(spec: type) -> Callable[[M], M]:
    """Class decorator: this module is built from specifications of type `spec`."""

    def decorate(module: M) -> M:
        assert spec not in _BUILDERS, f"two modules for {spec.__name__}"
        _BUILDERS[spec] = module
        return module

    return decorate


def build(spec: object) -> nn.Module:
    """The module of a specification; TypeError when no module is registered for it."""
    if type(spec) not in _BUILDERS:
        raise TypeError(f"no block is registered for {type(spec).__name__}")
    return _BUILDERS[type(spec)](spec)


def build_block(spec: BlockSpec) -> nn.Module:
    """The module of a block specification; TypeError when no module is registered for it."""
    return build(spec)
