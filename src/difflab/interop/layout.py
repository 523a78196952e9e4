"""What every official layout of weights has: a name, the keys by which it is recognized, the map of a model's keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from difflab.conditioning.build import build_conditioners
from difflab.conditioning.config import ConditioningConfig
from difflab.config.diffusion import DiffusionConfig
from difflab.config.model import DrawingModelConfig, ModelConfig, NetworkModelConfig, NoisedModelConfig
from difflab.config.network import NetworkConfig
from difflab.errors import UserError
from difflab.interop.keymap import KeyMap, Shapes, shapes_of
from difflab.networks.count import meta_network
from difflab.networks.first_stage.config import FirstStageConfig

Model = TypeVar("Model", bound=ModelConfig, covariant=True)

NETWORK, CONDITIONERS, FIRST_STAGE = "network.", "conditioners.", "first_stage."
"""The prefixes of every state dict that difflab stores."""


@dataclass(frozen=True)
class Target:
    """The model that weights are for: its network, what the experiment adds to it, and its conditioners by name.

    image_size: pixels per side of what the network sees, which are the places of a latent where it diffuses latents.
    diffusion: its process, which has no weights; None if unknown.
    first_stage: what makes images of its latents; None if it makes images.
    """

    network: NetworkConfig
    image_size: int
    learned_variance: bool = False
    conditioning: ConditioningConfig = field(default_factory=dict)
    diffusion: DiffusionConfig | None = None
    first_stage: FirstStageConfig | None = None

    @classmethod
    def of(cls, config: ModelConfig) -> Target:
        """The model of a configuration. Raises UserError for a kind of model that no layout supports."""
        if not isinstance(config, NetworkModelConfig):
            raise UserError(f"{config.title} has no layout but difflab's own")
        conditioning = config.conditioning if isinstance(config, DrawingModelConfig) else {}
        if not isinstance(config, NoisedModelConfig):
            return cls(config.network, config.image_size)
        return cls(
            config.network,
            config.noised_shape[-1],
            config.diffusion.learns_variance,
            conditioning,
            config.diffusion,
            config.first_stage,
        )

    def meta_network(self) -> nn.Module:
        """The network without storage; UserError if the configuration does not fit the image size."""
        try:
            return meta_network(self.network, image_size=self.image_size, learned_variance=self.learned_variance)
        except ValueError as error:
            raise UserError(str(error)) from error

    def architecture(self) -> dict[str, object]:
        """What determines keys, shapes and computation: equal if the weights of one target fit the other."""
        facts: dict[str, object] = {} if self.network.takes_any_size else {"image_size": self.image_size}
        if self.network.gives == "images":
            facts["learned_variance"] = self.learned_variance
        facts |= self.network.architecture(self.image_size)
        shapes = self.conditioner_shapes()
        of_classes = (name for name, config in self.conditioning.items() if config.num_classes is not None)
        rows = [shapes[f"{name}.embedding.weight"][0] for name in of_classes]
        return facts | {"class_embeddings": rows}

    def conditioner_shapes(self) -> Shapes:
        """Key -> shape of the conditioners' weights, such as `<name>.embedding.weight` of a class."""
        if not self.conditioning:
            return {}
        with torch.device("meta"):
            conditioners = build_conditioners(
                self.conditioning, embedding_dim=self.network.embedding_channels, image_size=self.image_size
            )
        return shapes_of(conditioners.state_dict())

    def shapes(self) -> Shapes:
        """Key -> shape of all stored tensors of the model, under our own keys."""
        shapes = {NETWORK + key: shape for key, shape in shapes_of(self.meta_network().state_dict()).items()}
        if self.first_stage is not None:
            channels = self.first_stage.autoencoder.latent_channels
            shapes |= {f"{FIRST_STAGE}{key}": (channels,) for key in ("scale", "shift")}
        return shapes | {CONDITIONERS + key: shape for key, shape in self.conditioner_shapes().items()}


@dataclass(frozen=True)
class Described(Generic[Model]):
    """The model that weights are of, by what is stored beside them, and remarks on how that was read."""

    config: Model
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layout(ABC):
    """How one official code stores a kind of model: the names of its tensors, and how they become ours.

    name:   as in --layout.
    code:   the official code, in words.
    marker: a key by which a file of this layout is recognized, under whatever prefix.
    beside: keys that such a file has too, where other networks have the marker.
    absent: keys that it does not have, where other networks have the marker and these.
    program: a name, as in --layout, that it shares with the layouts of the same program for other kinds of models.
    widened: whether half precision is read as float32, as the code itself does.
    """

    name: str
    code: str
    marker: str
    beside: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    program: str = ""
    widened: bool = False

    @abstractmethod
    def keymap(self, target: Target) -> KeyMap:
        """The map between this layout and our whole model; UserError if the layout cannot represent it."""

    @abstractmethod
    def could_be(self, target: Target, shapes: Shapes) -> bool:
        """A quick comparison: False if the shapes of a file are certainly not this model's."""

    @abstractmethod
    def in_words(self, shapes: Shapes) -> tuple[str, ...]:
        """Facts on the model of a file, from its keys and shapes alone."""

    def marks(self, keys: Container[str], prefix: str = "") -> bool:
        """Whether keys are those of this layout, under a prefix."""
        found = all(f"{prefix}{key}" in keys for key in (self.marker, *self.beside))
        return found and not any(f"{prefix}{key}" in keys for key in self.absent)

    def takes(self, network: NetworkConfig) -> bool:
        """Whether it is for this kind of network."""
        return True

    def is_weight(self, scalar: str) -> bool:
        """Whether a tensor without dimensions is one of the model's; others are counters beside it."""
        return False

    def tidied(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """A marked state dict as today's version of the code stores it, and a line on each step taken.

        Raises UserError if something in it contradicts the rest.
        """
        return dict(state), []

    def part_of(self, keys: Iterable[str]) -> str | None:
        """What keys are if they are a part of such a model and lack the rest; None if they are not."""
        return None

    def refusal(self, shapes: Shapes) -> str | None:
        """Why difflab has no such model, if the shapes of a file tell that it has not; None otherwise."""
        return None

    def model_of(self, shapes: Shapes, name: str, activation: str | None) -> Described | None:
        """The whole model that the shapes of a file tell; None where it takes more to know it.

        name:       what the model is called in its configuration.
        activation: what the user says of it; None if nothing. Raises UserError where that is missing.
        """
        return None

    def file_of(self, official: Mapping[str, Tensor], target: Target) -> dict[str, Tensor]:
        """The content of the official file for a network's state dict."""
        return dict(official)

    def untold(self, target: Target) -> list[str]:
        """Lines on what was taken of the model that neither a file nor anything beside it says."""
        return []

    def not_in_file(self, config: ModelConfig) -> list[str]:
        """Lines on what one file of this layout does not say of a model."""
        return []

    def compare_tables(self, found: Mapping[str, Tensor], target: Target) -> list[str]:
        """One line on how a file's tables compare with the model's; [] if it has none."""
        return []
