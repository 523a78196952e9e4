"""The configuration of denoising runs, and of the models that they train."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, model_validator

from difflab.conditioning.config import ConditioningConfig
from difflab.config.diffusion import DiffusionConfig
from difflab.config.fitting import refuse_unfit
from difflab.config.guidance import GuidanceConfig
from difflab.config.model import DrawingModelConfig, Measurement, ModelConfig
from difflab.config.network import Gives, NetworkConfig, of_other_tasks
from difflab.config.sampler import SamplerConfig, refuse_inversion
from difflab.config.task import TASKS
from difflab.config.train import TrainConfig

DenoisingNetwork = Annotated[NetworkConfig, BeforeValidator(of_other_tasks)]


class DenoisingModelConfig(DrawingModelConfig):
    """A denoising network, from which images can be sampled."""

    title: ClassVar[str] = "a diffusion model"
    measures: ClassVar[tuple[Measurement, ...]] = ("samples", "likelihood")

    task: Literal["denoising"] = "denoising"
    network: DenoisingNetwork


@TASKS.register(
    DenoisingModelConfig,
    build_model="difflab.tasks.denoising.build:build_model",
    build_module="difflab.tasks.denoising.build:build_module",
)
class DenoisingTrainConfig(TrainConfig):
    """`task=denoising`: trains a network to predict the noise in an image (Ho et al. 2020, algorithm 1).

    sampler, guidance: used for the sample grids and evaluations during training.
    """

    free: ClassVar[frozenset[str]] = frozenset({"guidance", "sampler"})

    network_gives: ClassVar[Gives] = "images"

    task: Literal["denoising"]
    diffusion: DiffusionConfig
    network: DenoisingNetwork
    conditioning: ConditioningConfig
    """The conditioners of the model, by names of your own; {} for none."""
    guidance: GuidanceConfig
    """How pictures and evaluations during training are guided."""
    sampler: SamplerConfig
    """How pictures and evaluations during training are drawn."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        refuse_inversion(self.sampler)
        self.network.refuse_other_data(self.data)
        for name, conditioner in self.conditioning.items():
            conditioner.refuse_other_data(name, self.data)
        self._check_augmentation()
        made = {name: conditioner.makes(self.data.channels) for name, conditioner in self.conditioning.items()}
        refuse_unfit(made, self.network.reads)
        return self

    def _check_augmentation(self) -> None:
        augments = [name for name, one in self.conditioning.items() if one.augments]
        if len(augments) > 1:
            raise ValueError(f"conditioning.{augments[1]} augments the images a second time: leave one of the two out")
        unchanged = [name for name, one in self.conditioning.items() if one.shows_image]
        if augments and unchanged:
            raise ValueError(
                f"conditioning.{augments[0]} changes the image, but conditioning.{unchanged[0]} would show the "
                "unchanged one: leave one of the two out"
            )

    def described(self) -> Self:
        conditioning = {name: one.described() for name, one in self.conditioning.items()}
        return self.model_copy(update={"conditioning": conditioning})

    def completed(self, captions: Callable[[], Iterable[str]], earlier: ModelConfig | None = None) -> Self:
        theirs = earlier.conditioning if isinstance(earlier, DrawingModelConfig) else {}
        conditioning = {name: one.completed(captions, theirs.get(name)) for name, one in self.conditioning.items()}
        return self.model_copy(update={"conditioning": conditioning})

    def model(self) -> DenoisingModelConfig:
        return self.stored_as(DenoisingModelConfig)
