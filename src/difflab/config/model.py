"""The configuration of a stored model: enough to rebuild it and sample from it without the run that trained it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field

from difflab.conditioning.config import ConditioningConfig, Shrinks
from difflab.config.diffusion import DiffusionConfig
from difflab.config.foreign import RecordedConfig
from difflab.config.guidance import GuidanceConfig
from difflab.config.network import NetworkConfig
from difflab.config.sampler import SamplerConfig
from difflab.config.task import TASKS
from difflab.networks.first_stage.config import FirstStageConfig
from difflab.text.config import TokenizerConfig

Measurement = Literal[
    "samples", "likelihood", "accuracy", "zero_shot", "retrieval", "probe", "embeddings", "reconstructions"
]


class ModelConfig(RecordedConfig):
    """Stored as `config.json` beside exported weights, and derived from a run's `config.yaml`.

    Validating this class returns the model configuration of the task named by `task`.

    class_names: the names of the classes of its data, in the order of the labels, if known.

    What it can be used for:

    title: what it is, in words.
    measures: what can be measured of it: samples, the likelihood of images, the accuracy of classification; or, as it
        embeds images and texts, zero-shot classification, retrieval, linear probes of its features, and the embeddings
        themselves; or the reconstructions of an autoencoder.
    use: the arguments of a command that uses a classifier, with `{run}` as a placeholder; None for other models.
    """

    title: ClassVar[str]
    measures: ClassVar[tuple[Measurement, ...]] = ()
    use: ClassVar[str | None] = None

    experiment: str
    task: str
    image_size: Annotated[int, Field(gt=0)]
    channels: Annotated[int, Field(gt=0)]
    class_names: list[str] | None = None

    @classmethod
    def chosen(cls, content: Mapping[str, Any]) -> type[Self]:
        return cast(type[Self], TASKS.of(content).model) if cls is ModelConfig else cls

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
        return (self.channels, self.image_size, self.image_size)

    @property
    def untold(self) -> Mapping[str, Any]:
        """What its weights do not show, and has to be as it was when they were trained, by key."""
        return {}

    @property
    def learns(self) -> bool:
        """Whether its runs have yet to find something that is no weight, such as a vocabulary learned from captions."""
        return False

    @property
    def logits(self) -> int | None:
        """The number of classes of a classifier, None for other models."""
        return None


class NetworkModelConfig(ModelConfig):
    """A model whose weights are those of one network and of its conditioners."""

    network: NetworkConfig

    @property
    def untold(self) -> Mapping[str, Any]:
        return {f"network.{key}": value for key, value in self.network.untold.items()}


class EmbeddingModelConfig(NetworkModelConfig):
    """A model that embeds images and texts in one space."""

    measures: ClassVar[tuple[Measurement, ...]] = ("zero_shot", "retrieval", "probe", "embeddings")

    tokenizer: TokenizerConfig

    @property
    def learns(self) -> bool:
        return self.tokenizer.learns


class NoisedModelConfig(NetworkModelConfig):
    """A network whose inputs are noised images, or their noised latents.

    first_stage: what makes images of latents; None if there are no latents.
    """

    diffusion: DiffusionConfig
    first_stage: FirstStageConfig | None = None

    @property
    def noised_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what is noised: of one latent, or of one image."""
        return self.shape if self.first_stage is None else self.first_stage.latent_shape(*self.shape[1:])


class DrawingModelConfig(NoisedModelConfig):
    """A generative diffusion model.

    sampler and guidance are those the run used for its own samples: defaults, not part of the model.
    """

    conditioning: ConditioningConfig
    sampler: SamplerConfig
    guidance: GuidanceConfig

    @property
    def untold(self) -> Mapping[str, Any]:
        of_conditioners = {
            f"conditioning.{name}.{key}": value
            for name, one in self.conditioning.items()
            for key, value in one.untold.items()
        }
        of_latents = self.first_stage.untold if self.first_stage is not None else {}
        return {
            **super().untold,
            **of_conditioners,
            **{f"first_stage.{key}": value for key, value in of_latents.items()},
        }

    @property
    def classes(self) -> int | None:
        """The number of classes it is conditioned on, None if it is not class-conditional."""
        return next((n for one in self.conditioning.values() if (n := one.num_classes) is not None), None)

    @property
    def learns(self) -> bool:
        unread = self.first_stage is not None and self.first_stage.architecture is None
        return unread or any(one.learns for one in self.conditioning.values())

    @property
    def shrinks(self) -> Shrinks | None:
        """How the low-resolution image that it enlarges is made, None if it enlarges none."""
        return next((how for one in self.conditioning.values() if (how := one.shrinks) is not None), None)

    @property
    def from_image(self) -> bool:
        """Whether its samples are drawn from images: enlarged, with a hole filled, or varied."""
        return any(one.from_image for one in self.conditioning.values())
