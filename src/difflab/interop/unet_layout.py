"""Layouts of UNets: the keys of the codes of DDPM, ADM, SR3 and diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from difflab.conditioning.config import ConditioningConfig
from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.errors import UserError
from difflab.interop.keymap import Entry, KeyMap, Shapes, shapes_of
from difflab.interop.layout import CONDITIONERS, NETWORK, Layout, Target
from difflab.interop.unet_words import Places, unet_in_words
from difflab.networks.config import Stem, UNetBase

ConditionerEntries = Callable[[Any], list[Entry]]
"""The configuration of a conditioner -> the entries of its weights, under its own keys."""


def without_weights(config: Any) -> list[Entry]:
    """The entries of a conditioner that has no weights."""
    return []


def class_embedding(official: str) -> ConditionerEntries:
    """The entries of a class embedding of that official name."""
    return lambda config: [Entry((f"{official}.weight",), "embedding.weight")]


def _no_constants(plan: Any) -> dict[str, Tensor]:
    return {}


def _unchanged(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    return dict(state), []


def _alike(found: Tensor, ours: Tensor) -> bool:
    # Other machines and versions of numpy round the last digits of a table differently.
    comparable = found.is_floating_point() and found.shape == ours.shape
    return comparable and torch.allclose(found.to(ours), ours, rtol=1e-4, atol=1e-7)


def _ends(table: Tensor) -> str:
    if not table.is_floating_point():
        return str(table.dtype).removeprefix("torch.")
    return f"{float(table.flatten()[0]):.3g} to {float(table.flatten()[-1]):.3g}" if table.numel() else "nothing"


@dataclass(frozen=True, kw_only=True)
class UNetLayout(Layout):
    """The key layout of UNets in one official code.

    entries:      plan, the network's shapes -> the entries of its key map; our keys without `network.`.
    requires:     configuration values that the official network needs, even if the keys are equal without them.
    stem:         the width of its first convolution.
    places:       the keys by which its models are described.
    networks:     the kinds of networks that the code supports.
    conditioners: the kinds of conditioners that it supports -> the entries of their weights. The code has at most one
                  of each.
    order:        the modules of the official network in the order of its state dict; () if it is the entries' order.
    constants:    plan -> untrained tensors of the official network besides its weights.
    prefix:       the prefix of the network's keys in the official file.
    tables:       the process -> the tensors before the network in the official file; None for none.
    modern:       a state dict -> the same as today's version of the code names it, and a line if that differs.
    """

    entries: Callable[[Any, Shapes], list[Entry]]
    requires: Mapping[str, Any]
    stem: Stem
    places: Places
    networks: tuple[Literal["unet", "unet_encoder"], ...] = ("unet",)
    conditioners: Mapping[str, ConditionerEntries] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    constants: Callable[[Any], dict[str, Tensor]] = _no_constants
    prefix: str = ""
    tables: Callable[[DiscreteDiffusionConfig], dict[str, Tensor]] | None = None
    modern: Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], list[str]]] = _unchanged

    def keymap(self, target: Target) -> KeyMap:
        config = _unet_of(target)
        self.refuse_network(config)
        network = target.meta_network()
        shapes = shapes_of(network.state_dict())
        conditioners = target.conditioner_shapes()
        entries = [
            *(
                replace(entry, ours=NETWORK + entry.ours)
                for entry in self.network_entries(config, network.plan, shapes)
            ),
            *self._conditioner_entries(target.conditioning),
        ]
        if self.order:
            entries.sort(key=lambda entry: self.order.index(entry.official[0].partition(".")[0]))
        ours = {NETWORK + key: shape for key, shape in shapes.items()}
        shapes = ours | {CONDITIONERS + key: shape for key, shape in conditioners.items()}
        return KeyMap(self.name, entries, shapes, self.constants(network.plan))

    def network_entries(self, config: UNetBase, plan: Any, shapes: Shapes) -> list[Entry]:
        """The entries of the network of a configuration; our keys without `network.`."""
        return self.entries(plan, shapes)

    def file_of(self, official: Mapping[str, Tensor], target: Target) -> dict[str, Tensor]:
        return self._tables_of(target) | {self.prefix + key: value for key, value in official.items()}

    def compare_tables(self, found: Mapping[str, Tensor], target: Target) -> list[str]:
        ours = {key: value for key, value in self._tables_of(target).items() if key in found}
        if not ours:
            return []
        other = [key for key, value in ours.items() if not _alike(found[key], value)]
        if not other:
            return [f"its {len(ours)} tables of the noise schedule are those of the model"]
        steps, wanted = len(found[other[0]].flatten()), len(ours[other[0]])
        return [
            f"its noise schedule is another than the model's: {other[0]} has {steps} steps from "
            f"{_ends(found[other[0]])}, the model's {wanted} from {_ends(ours[other[0]])}; it was left out"
        ]

    def could_be(self, target: Target, shapes: Shapes) -> bool:
        """Whether the first convolutions agree."""
        config = _unet_of(target)
        inputs = config.channels + getattr(config, "concat_channels", 0)
        return shapes.get(self.places.stem, ())[:2] == (config.widths[0], inputs)

    def in_words(self, shapes: Shapes) -> tuple[str, ...]:
        return unet_in_words(shapes, self.places)

    def tidied(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        return self.modern(state)

    def _tables_of(self, target: Target) -> dict[str, Tensor]:
        if self.tables is None or not isinstance(target.diffusion, DiscreteDiffusionConfig):
            return {}
        return self.tables(target.diffusion)

    def refuse_network(self, network: UNetBase) -> None:
        """Raises UserError naming the first option for which the code has no such network."""
        if network.kind not in self.networks:
            raise UserError(f"{self.code} has no network of kind {network.kind}; use another layout")
        for key, value in self.requires.items():
            # A kind of network without this option cannot differ in it.
            found = getattr(network, key, value)
            if found != value:
                raise UserError(f"{self.code} has no network with {key}={found!r} (only {value!r}); use another layout")
        expected = network.base_channels if self.stem == "base" else network.widths[0]
        if network.stem_channels != expected:
            raise UserError(
                f"{self.code} begins with a convolution of {expected} channels, this network with one of "
                f"{network.stem_channels} (stem={network.stem}); use another layout"
            )

    def _conditioner_entries(self, conditioning: ConditioningConfig) -> list[Entry]:
        kinds: set[str] = set()
        entries: list[Entry] = []
        for name, config in conditioning.items():
            if config.kind not in self.conditioners or config.kind in kinds:
                which = "a second conditioner" if config.kind in kinds else "a conditioner"
                raise UserError(
                    f"layout {self.name} cannot hold {name}, {which} of kind {config.kind}; use layout difflab"
                )
            kinds.add(config.kind)
            own = self.conditioners[config.kind](config)
            entries += [replace(entry, ours=f"{CONDITIONERS}{name}.{entry.ours}") for entry in own]
        return entries


def _unet_of(target: Target) -> UNetBase:
    if not isinstance(target.network, UNetBase):
        raise UserError(f"network.kind={target.network.kind} is no UNet; use another layout")
    return target.network
