"""What an official layout of weights is: a name and a way to map one network's keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from difflab.config.network import UNetConfig
from difflab.errors import UserError
from difflab.interop.keymap import Entry, KeyMap, Shapes, shapes_of
from difflab.networks.count import meta_network
from difflab.networks.plan import UNetPlan, plan_unet


@dataclass(frozen=True)
class Target:
    """A network that weights are for: its configuration and what the experiment adds to it."""

    network: UNetConfig
    image_size: int
    learned_variance: bool = False

    def plan(self) -> UNetPlan:
        """The blocks of the network; UserError when the configuration does not fit the image size."""
        try:
            return plan_unet(self.network, image_size=self.image_size, learned_variance=self.learned_variance)
        except ValueError as error:
            raise UserError(str(error)) from error

    def shapes(self) -> Shapes:
        """Our keys and shapes, found without allocating weights."""
        network = meta_network(self.network, image_size=self.image_size, learned_variance=self.learned_variance)
        return shapes_of(network.state_dict())


@dataclass(frozen=True)
class Layout:
    """The key layout of one official code.

    entries:  plan, our shapes -> the entries of the key map.
    requires: configuration values without which the official network cannot be this one; the state dict cannot tell.
    marker:   a key that only this layout has, to name the layout of a file that fits no known network.
    """

    name: str
    code: str
    entries: Callable[[UNetPlan, Shapes], list[Entry]]
    requires: Mapping[str, Any]
    marker: str

    def keymap(self, target: Target) -> KeyMap:
        """The map between this layout and ours; UserError when the layout cannot express the network."""
        for key, value in self.requires.items():
            found = getattr(target.network, key)
            if found != value:
                raise UserError(f"{self.code} has no network with {key}={found!r} (only {value!r}); use another layout")
        shapes = target.shapes()
        return KeyMap(self.name, self.entries(target.plan(), shapes), shapes)
