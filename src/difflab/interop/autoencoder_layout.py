"""Layouts of first stages: CompVis' files and diffusers' classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from difflab.config.network import NetworkConfig
from difflab.errors import UserError
from difflab.interop.autoencoder_keys import compvis_entries, diffusers_entries
from difflab.interop.autoencoder_model import IMAGE_SIZE, stored_autoencoder
from difflab.interop.autoencoder_shapes import AutoencoderKeys, autoencoder_of_shapes
from difflab.interop.diffusers_unet import modern_attention_names
from difflab.interop.keymap import Entry, KeyMap, Shapes, shapes_of
from difflab.interop.layout import NETWORK, Described, Layout, Target
from difflab.networks.autoencoder.config import AutoencoderConfig

Tidied = tuple[dict[str, Tensor], list[str]]

_AVERAGES = "model_ema."
_LOSS = "loss."


@dataclass(frozen=True, kw_only=True)
class AutoencoderLayout(Layout):
    """The key layout of autoencoders in one official code.

    entries:  the configuration -> the entries of its key map; our keys without `network.`.
    keys:     where it has what tells the shape.
    requires: configuration values that the official network needs, even if the keys are equal without them.
    tidy:     a state dict -> the weights of the network alone, as today's version of the code names them.
    """

    entries: Callable[[AutoencoderConfig], list[Entry]]
    keys: AutoencoderKeys
    tidy: Callable[[Mapping[str, Tensor]], Tidied]
    requires: Mapping[str, Any] = field(default_factory=dict)

    def keymap(self, target: Target) -> KeyMap:
        config = autoencoder_of(target)
        for key, value in self.requires.items():
            if (found := getattr(config, key)) != value:
                raise UserError(
                    f"{self.code} has no autoencoder with {key}={found!r} (only {value!r}); use another layout"
                )
        shapes = {NETWORK + key: shape for key, shape in shapes_of(target.meta_network().state_dict()).items()}
        entries = [replace(entry, ours=NETWORK + entry.ours) for entry in self.entries(config)]
        return KeyMap(self.name, entries, shapes)

    def takes(self, network: NetworkConfig) -> bool:
        return isinstance(network, AutoencoderConfig)

    def could_be(self, target: Target, shapes: Shapes) -> bool:
        """Whether everything that shapes tell agrees."""
        found = autoencoder_of_shapes(shapes, self.keys)
        config = target.network
        if found is None or not isinstance(config, AutoencoderConfig):
            return False
        return found.architecture(0) == config.architecture(0)

    def in_words(self, shapes: Shapes) -> tuple[str, ...]:
        found = autoencoder_of_shapes(shapes, self.keys)
        return () if found is None else found.in_words(0)

    def tidied(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        return self.tidy(state)

    def model_of(self, shapes: Shapes, name: str, activation: str | None) -> Described | None:
        found = autoencoder_of_shapes(shapes, self.keys)
        if found is None:
            return None
        note = f"took images of {IMAGE_SIZE} pixels, as of all published first stages; it takes other sizes too"
        return Described(stored_autoencoder(found, IMAGE_SIZE, f"{self.name}/{name}"), (note,))

    def untold(self, target: Target) -> list[str]:
        taken = {key: value for key, value in target.network.untold.items() if key not in self.requires}
        said = ", ".join(f"{key}={json.dumps(value)}" for key, value in taken.items())
        return [f"nothing beside these weights says their {' and '.join(taken)}: taken for {said}"]


def autoencoder_of(target: Target) -> AutoencoderConfig:
    """The autoencoder of a target; UserError if it is another network."""
    if not isinstance(target.network, AutoencoderConfig):
        raise UserError(f"network.kind={target.network.kind} is no autoencoder; use another layout")
    return target.network


def _of_network_alone(state: Mapping[str, Tensor]) -> Tidied:
    """Leaves out the modules of the loss, and takes averages where there are some.

    The names of averages are those of the weights without dots (`LitEma`), from which weights cannot be told, but not
    the other way round.
    """
    notes = []
    loss = sorted({key.split(".")[1] for key in state if key.startswith(_LOSS)})
    if loss:
        notes.append(f"left out the modules of its loss: {', '.join(loss)}")
    weights = {key: value for key, value in state.items() if not key.startswith((_LOSS, _AVERAGES))}
    averages = {key.removeprefix(_AVERAGES): value for key, value in state.items() if key.startswith(_AVERAGES)}
    if averages:
        flat = {key: key.replace(".", "") for key in weights}
        lacking = [key for key in weights if flat[key] not in averages]
        if lacking:
            raise UserError(f"its averages ({_AVERAGES}*) have no {lacking[0]}: they are of another network")
        weights = {key: averages[flat[key]] for key in weights}
        notes.append(f"took the averages of training ({_AVERAGES}*) in place of the weights")
    return weights, notes


COMPVIS_AUTOENCODER = AutoencoderLayout(
    name="compvis_autoencoder",
    program="compvis",
    code="CompVis/latent-diffusion",
    entries=compvis_entries,
    keys=AutoencoderKeys(
        block=r"encoder\.down\.(\d+)\.block\.(\d+)\.conv1\.weight",
        attention=r"encoder\.down\.(\d+)\.attn\.",
        middle="encoder.mid.attn_1.",
        norm="norm.weight",
    ),
    tidy=_of_network_alone,
    requires={"norm_groups": 32, "norm_eps": 1e-6},
    marker="encoder.down.0.block.0.norm1.weight",
    beside=("post_quant_conv.weight",),
)
DIFFUSERS_AUTOENCODER = AutoencoderLayout(
    name="diffusers_autoencoder",
    program="diffusers",
    code="diffusers",
    entries=diffusers_entries,
    keys=AutoencoderKeys(
        block=r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.conv1\.weight",
        attention=r"encoder\.down_blocks\.(\d+)\.attentions\.",
        middle="encoder.mid_block.attentions.0.",
        norm="group_norm.weight",
    ),
    tidy=modern_attention_names,
    requires={"norm_eps": 1e-6, "tanh_output": False, "attention_type": "vanilla"},
    marker="encoder.down_blocks.0.resnets.0.norm1.weight",
    beside=("post_quant_conv.weight",),
)
