"""Official layouts of weights: each a name and the map of a model's keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from difflab.conditioning.build import build_conditioners
from difflab.conditioning.config import ConditioningConfig
from difflab.config.diffusion import DiffusionConfig
from difflab.config.model import DrawingModelConfig, ModelConfig, NetworkModelConfig, NoisedModelConfig
from difflab.config.network import NetworkConfig
from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.errors import UserError
from difflab.interop.keymap import Entry, KeyMap, Shapes, shapes_of
from difflab.networks.config import Stem, UNetBase
from difflab.networks.count import meta_network

NETWORK, CONDITIONERS = "network.", "conditioners."
"""The two prefixes of every state dict that difflab stores."""

_NOT_ARCHITECTURE = {
    *("dropout", "init", "checkpoint_activations"),
    *("channel_mult", "stem", "blocks_per_level", "attention_heads", "attention_head_channels"),
}
"""Options that do not affect what the trained network computes, or are determined in another way."""


@dataclass(frozen=True)
class Target:
    """The model that weights are for: its network, what the experiment adds to it, and its conditioners by name.

    diffusion: its process, which has no weights; None if unknown.
    """

    network: NetworkConfig
    image_size: int
    learned_variance: bool = False
    conditioning: ConditioningConfig = field(default_factory=dict)
    diffusion: DiffusionConfig | None = None

    @classmethod
    def of(cls, config: ModelConfig) -> Target:
        """The model of a configuration. Raises UserError for a kind of model that no layout supports."""
        if not isinstance(config, NetworkModelConfig):
            raise UserError(f"{config.title} has no layout but difflab's own")
        conditioning = config.conditioning if isinstance(config, DrawingModelConfig) else {}
        diffusion = config.diffusion if isinstance(config, NoisedModelConfig) else None
        learned_variance = diffusion is not None and diffusion.learns_variance
        return cls(config.network, config.image_size, learned_variance, conditioning, diffusion)

    @property
    def unet(self) -> UNetBase:
        """The network's configuration. Raises UserError if it is no UNet, as all official networks are."""
        if not isinstance(self.network, UNetBase):
            raise UserError(f"network.kind={self.network.kind} has no layout but difflab's own")
        return self.network

    def meta_network(self) -> nn.Module:
        """The network without storage; UserError if the configuration does not fit the image size."""
        try:
            return meta_network(self.network, image_size=self.image_size, learned_variance=self.learned_variance)
        except ValueError as error:
            raise UserError(str(error)) from error

    def architecture(self) -> dict[str, object]:
        """What determines keys, shapes and computation: equal if the weights of one target fit the other."""
        cfg = self.unet
        facts: dict[str, object] = {"image_size": self.image_size}
        if cfg.kind == "unet":
            facts["learned_variance"] = self.learned_variance
        facts |= {key: value for key, value in cfg.model_dump().items() if key not in _NOT_ARCHITECTURE}
        facts["attention_resolutions"] = sorted(cfg.attention_resolutions)
        if len(cfg.widths) == 1:
            del facts["resample"]
        facts |= {
            "stem_channels": cfg.stem_channels,
            "widths": cfg.widths,
            "depths": cfg.depths,
            "heads": self._heads(),
        }
        rows = [shape[0] for key, shape in self.conditioner_shapes().items() if key.endswith(".embedding.weight")]
        return facts | {"class_embeddings": rows}

    def conditioner_shapes(self) -> Shapes:
        """Key -> shape of the conditioners' weights, `<name>.embedding.weight`."""
        with torch.device("meta"):
            conditioners = build_conditioners(
                self.conditioning, embedding_dim=self.network.embedding_channels, image_size=self.image_size
            )
        return shapes_of(conditioners.state_dict())

    def shapes(self) -> Shapes:
        """Key -> shape of all stored tensors of the model, under our own keys."""
        shapes = {NETWORK + key: shape for key, shape in shapes_of(self.meta_network().state_dict()).items()}
        return shapes | {CONDITIONERS + key: shape for key, shape in self.conditioner_shapes().items()}

    def _heads(self) -> dict[int, int]:
        """Grid size of each level with attention, and of the middle -> its number of heads."""
        cfg = self.unet
        grids = [cfg.padded(self.image_size) // cfg.patch_size // 2**level for level in range(len(cfg.widths))]
        attended = {*cfg.attention_resolutions, *grids[-1:]} if cfg.middle_attention else {*cfg.attention_resolutions}
        return {
            grid: cfg.attention_heads or width // (cfg.attention_head_channels or width)
            for grid, width in zip(grids, cfg.widths, strict=True)
            if grid in attended
        }


def _no_constants(plan: Any) -> dict[str, Tensor]:
    return {}


def _alike(found: Tensor, ours: Tensor) -> bool:
    # Other machines and versions of numpy round the last digits of a table differently.
    comparable = found.is_floating_point() and found.shape == ours.shape
    return comparable and torch.allclose(found.to(ours), ours, rtol=1e-4, atol=1e-7)


def _ends(table: Tensor) -> str:
    if not table.is_floating_point():
        return str(table.dtype).removeprefix("torch.")
    return f"{float(table.flatten()[0]):.3g} to {float(table.flatten()[-1]):.3g}" if table.numel() else "nothing"


@dataclass(frozen=True)
class Layout:
    """The key layout of one official code.

    entries:      plan, the network's shapes -> the entries of its key map; our keys without `network.`.
    requires:     configuration values that the official network needs, even if the keys are equal without them.
    stem:         the width of its first convolution.
    marker:       a key that only this layout has, by which a file that fits no known model is recognized.
    networks:     the kinds of networks that the code supports.
    conditioners: the kinds of conditioners that it supports -> the official name of their embedding, None if they have
                  no weights. The code has at most one of each.
    order:        the modules of the official network in the order of its state dict; () if it is the entries' order.
    constants:    plan -> untrained tensors of the official network besides its weights.
    prefix:       the prefix of the network's keys in the official file.
    tables:       the process -> the tensors before the network in the official file; None for none.
    """

    name: str
    code: str
    entries: Callable[[Any, Shapes], list[Entry]]
    requires: Mapping[str, Any]
    stem: Stem
    marker: str
    networks: tuple[Literal["unet", "unet_encoder"], ...] = ("unet",)
    conditioners: Mapping[str, str | None] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    constants: Callable[[Any], dict[str, Tensor]] = _no_constants
    prefix: str = ""
    tables: Callable[[DiscreteDiffusionConfig], dict[str, Tensor]] | None = None

    def keymap(self, target: Target) -> KeyMap:
        """The map between this layout and our whole model; UserError if the layout cannot represent it."""
        self._refuse_network(target.unet)
        network = target.meta_network()
        shapes = shapes_of(network.state_dict())
        conditioners = target.conditioner_shapes()
        entries = [
            *(replace(entry, ours=NETWORK + entry.ours) for entry in self.entries(network.plan, shapes)),
            *self._conditioner_entries(target.conditioning, conditioners),
        ]
        if self.order:
            entries.sort(key=lambda entry: self.order.index(entry.official[0].partition(".")[0]))
        ours = {NETWORK + key: shape for key, shape in shapes.items()}
        shapes = ours | {CONDITIONERS + key: shape for key, shape in conditioners.items()}
        return KeyMap(self.name, entries, shapes, self.constants(network.plan))

    def file_of(self, official: Mapping[str, Tensor], target: Target) -> dict[str, Tensor]:
        """The content of the official file for a network's state dict."""
        return self._tables_of(target) | {self.prefix + key: value for key, value in official.items()}

    def compare_tables(self, found: Mapping[str, Tensor], target: Target) -> list[str]:
        """One line on how a file's tables compare with the model's; [] if it has none."""
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

    def _tables_of(self, target: Target) -> dict[str, Tensor]:
        if self.tables is None or not isinstance(target.diffusion, DiscreteDiffusionConfig):
            return {}
        return self.tables(target.diffusion)

    def _refuse_network(self, network: UNetBase) -> None:
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

    def _conditioner_entries(self, conditioning: ConditioningConfig, shapes: Shapes) -> list[Entry]:
        kinds: set[str] = set()
        entries = []
        for name, config in conditioning.items():
            if config.kind not in self.conditioners or config.kind in kinds:
                which = "a second conditioner" if config.kind in kinds else "a conditioner"
                raise UserError(
                    f"layout {self.name} cannot hold {name}, {which} of kind {config.kind}; use layout difflab"
                )
            kinds.add(config.kind)
            official = self.conditioners[config.kind]
            own = [key for key in shapes if key.startswith(f"{name}.")]
            assert own == ([] if official is None else [f"{name}.embedding.weight"]), own
            entries += [Entry((f"{official}.weight",), CONDITIONERS + key) for key in own]
        return entries
