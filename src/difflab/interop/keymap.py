"""Invertible maps between an official state dict and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from difflab.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]

_KEYS_SHOWN = 3


class Transform(Protocol):
    """How the official tensors of one entry become our tensor, and back. Works on the meta device too."""

    def to_ours(self, official: Sequence[Tensor]) -> Tensor: ...

    def to_official(self, ours: Tensor) -> list[Tensor]: ...


@dataclass(frozen=True)
class Same:
    """One tensor, unchanged."""

    def to_ours(self, official: Sequence[Tensor]) -> Tensor:
        return official[0]

    def to_official(self, ours: Tensor) -> list[Tensor]:
        return [ours]


@dataclass(frozen=True)
class Fused:
    """`parts` official tensors stacked along the rows of ours; `pointwise` of them are convolutions of that many
    spatial dimensions (all of size 1), which are linear layers here."""

    parts: int = 1
    pointwise: int = 0

    def to_ours(self, official: Sequence[Tensor]) -> Tensor:
        linear = [self._linear(tensor) for tensor in official]
        return linear[0] if self.parts == 1 else torch.cat(linear)

    def to_official(self, ours: Tensor) -> list[Tensor]:
        ones = (1,) * (self.pointwise if ours.ndim > 1 else 0)
        return [part.reshape(*part.shape, *ones) for part in ours.chunk(self.parts)]

    def _linear(self, tensor: Tensor) -> Tensor:
        # A bias has one dimension and stays; a tensor of another shape is left for the shape check to name.
        extra = tensor.ndim - 2
        return tensor.flatten(1) if extra == self.pointwise > 0 and tensor.shape[2:].numel() == 1 else tensor


@dataclass(frozen=True)
class HeadsFirst:
    """Official rows [head][part][channel] (ADM's older attention), ours [part][head][channel]; a convolution with
    `pointwise` spatial dimensions there."""

    heads: int
    parts: int = 3
    pointwise: int = 1

    def to_ours(self, official: Sequence[Tensor]) -> Tensor:
        return self._swap(Fused(1, self.pointwise).to_ours(official), self.heads, self.parts)

    def to_official(self, ours: Tensor) -> list[Tensor]:
        return Fused(1, self.pointwise).to_official(self._swap(ours, self.parts, self.heads))

    @staticmethod
    def _swap(rows: Tensor, outer: int, inner: int) -> Tensor:
        if rows.shape[0] % (outer * inner):
            return rows
        return rows.unflatten(0, (outer, inner, -1)).transpose(0, 1).flatten(0, 2)


@dataclass(frozen=True)
class Entry:
    """One tensor of ours and the official ones from which it is made."""

    official: tuple[str, ...]
    ours: str
    transform: Transform = Same()


def both(official: str | Sequence[str], ours: str, transform: Transform | None = None) -> list[Entry]:
    """The entries of a layer's weight and bias; the names are those of the layer."""
    names = (official,) if isinstance(official, str) else tuple(official)
    return [
        Entry(tuple(f"{name}.{leaf}" for name in names), f"{ours}.{leaf}", transform or Same())
        for leaf in ("weight", "bias")
    ]


class KeyMap:
    """A complete map of one model: every tensor of ours once, every official tensor once.

    `shapes` are those of our model. Both directions are strict.
    constants: official tensors that are not trained and that no tensor of ours contains; a file must have the same.
    """

    def __init__(
        self, layout: str, entries: Sequence[Entry], shapes: Shapes, constants: Mapping[str, Tensor] | None = None
    ) -> None:
        self.layout = layout
        self.entries = tuple(entries)
        mapped = [entry.ours for entry in self.entries]
        official = [name for entry in self.entries for name in entry.official]
        assert sorted(mapped) == sorted(shapes), sorted(set(mapped) ^ set(shapes))
        self.constants = dict(constants or {})
        official += self.constants
        assert len(set(official)) == len(official), "an official key is mapped twice"
        self.shapes: Shapes = dict(shapes)
        meta = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        self.official_shapes: Shapes = {name: tuple(t.shape) for name, t in self._to_official(meta).items()}

    def from_official(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Official state dict -> ours; UserError naming the first keys that differ."""
        refuse_misfit(
            state, self.official_shapes, "these weights", f"do not fit the {self.layout} layout of this network"
        )
        for name, constant in self.constants.items():
            if not state[name].is_meta and not torch.allclose(state[name].to(constant), constant):
                raise UserError(f"these weights have other values of {name} than the {self.layout} layout always has")
        return {e.ours: e.transform.to_ours([state[name] for name in e.official]) for e in self.entries}

    def to_official(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our state dict -> official; UserError naming the first keys that differ."""
        refuse_misfit(state, self.shapes, "these weights", "are not those of this network")
        return self._to_official(state)

    def _to_official(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        made = dict(self.constants)
        for entry in self.entries:
            made.update(zip(entry.official, entry.transform.to_official(state[entry.ours]), strict=True))
        return made


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Key -> shape of every tensor."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def describe_differences(found: Shapes, expected: Shapes) -> list[str]:
    """One phrase for each key whose shape differs, then for each that is missing or unexpected."""
    wrong = [
        f"{name} is {list(found[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    missing = [f"{name} {list(shape)} is missing" for name, shape in expected.items() if name not in found]
    unexpected = [f"{name} {list(shape)} is unexpected" for name, shape in found.items() if name not in expected]
    return wrong + missing[:2] + unexpected[:2] + missing[2:] + unexpected[2:]


def refuse_misfit(
    state: Mapping[str, Tensor],
    expected: Shapes,
    source: str,
    verdict: str = "is of another architecture",
    hint: str = "",
) -> None:
    """Raises UserError, `<source> <verdict>` and the first keys in which weights differ from what a model expects.

    hint: appended to the message.
    """
    differences = describe_differences(shapes_of(state), expected)
    if differences:
        more = f" and {len(differences) - _KEYS_SHOWN} more" if len(differences) > _KEYS_SHOWN else ""
        raise UserError(f"{source} {verdict}: {'; '.join(differences[:_KEYS_SHOWN])}{more}{hint}")
