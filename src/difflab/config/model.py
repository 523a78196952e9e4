"""What a stored model is: enough to rebuild it and to draw from it, without the run that trained it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field

from difflab.conditioning.config import ConditioningConfig, DownsampleFilter
from difflab.config.diffusion import DiffusionConfig
from difflab.config.foreign import RecordedConfig
from difflab.config.guidance import GuidanceConfig
from difflab.config.network import NetworkConfig
from difflab.config.sampler import SamplerConfig
from difflab.config.task import TASKS

Measurement = Literal["samples", "likelihood", "accuracy"]


class ModelConfig(RecordedConfig):
    """Stands in `config.json` beside exported weights, and is read out of a run's `config.yaml`.

    Validating this class gives the model of the task that `task` names.

    class_names: what the classes of its data are called, in the order of the labels, where that is known.

    What it is good for:

    title: what it is, in words.
    measures: what can be measured of it: the samples that it draws, how likely images are, how well it tells classes.
    use: what a classifier is for, as arguments of a command that `{run}` is put into; None for other models.
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
    def logits(self) -> int | None:
        """How many classes it tells apart, None where it classifies nothing."""
        return None


class NetworkModelConfig(ModelConfig):
    """A model whose weights are those of one network, and of what tells it things."""

    network: NetworkConfig

    @property
    def untold(self) -> Mapping[str, Any]:
        return {f"network.{key}": value for key, value in self.network.untold.items()}


class NoisedModelConfig(NetworkModelConfig):
    """A network that looks at noised images."""

    diffusion: DiffusionConfig


class DrawingModelConfig(NoisedModelConfig):
    """A model that draws by diffusion.

    sampler and guidance are what the run used for its own pictures: defaults, not part of the model.
    """

    conditioning: ConditioningConfig
    sampler: SamplerConfig
    guidance: GuidanceConfig

    @property
    def classes(self) -> int | None:
        """How many classes it is told of, None where it is told of none."""
        return next((n for one in self.conditioning.values() if (n := one.num_classes) is not None), None)

    @property
    def shrinks(self) -> tuple[int, DownsampleFilter] | None:
        """Pixels per side and the filter of the smaller image that it enlarges, None where it enlarges none."""
        return next((how for one in self.conditioning.values() if (how := one.shrinks) is not None), None)
