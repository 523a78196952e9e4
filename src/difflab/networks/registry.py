"""The registry from block specifications to modules, where new kinds of blocks are added to the UNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from torch import nn

M = TypeVar("M", bound=type[nn.Module])


class BlockSpec(Protocol):
    """A frozen dataclass that describes one block completely.

    name:       its group in the state dict (`encoder.0.<name>.1.conv1.weight`).
    checkpoint: recompute the block in the backward pass.
    reads:      fields of `Conditioning` that the block reads, besides the time embedding.

    The module built from it has `forward(h, emb, cond, context) -> h`: features [B, C, H, W], the activated time
    embedding [B, E] (None in networks without time), the network's conditioning, and its tokens [B, L, D] ready for
    attention. A transformer with self- and cross-attention is one such block; a layer between the two (GLIGEN's gate)
    is a field of its specification and reads `cond.grounding`.
    """

    @property
    def name(self) -> str: ...

    @property
    def checkpoint(self) -> bool: ...

    @property
    def reads(self) -> tuple[str, ...]: ...


_BUILDERS: dict[type, Callable[[Any], nn.Module]] = {}


def register(spec: type) -> Callable[[M], M]:
    """Class decorator that registers a module for specifications of type `spec`."""

    def decorate(module: M) -> M:
        assert spec not in _BUILDERS, f"two modules for {spec.__name__}"
        _BUILDERS[spec] = module
        return module

    return decorate


def build(spec: object) -> nn.Module:
    """Builds the module of a specification. Raises TypeError if no module is registered for it."""
    if type(spec) not in _BUILDERS:
        raise TypeError(f"no block is registered for {type(spec).__name__}")
    return _BUILDERS[type(spec)](spec)


def build_block(spec: BlockSpec) -> nn.Module:
    """Builds the module of a block specification. Raises TypeError if no module is registered for it."""
    return build(spec)
