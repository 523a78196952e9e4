"""The configuration of denoising runs, and of the models that they train."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import BeforeValidator, model_validator

from difflab.conditioning.config import ConditionerBase, ConditioningConfig
from difflab.config.diffusion import DiffusionConfig
from difflab.config.fitting import Makes, refuse_unfit
from difflab.config.guidance import GuidanceConfig
from difflab.config.learning import TrainingTexts
from difflab.config.model import DrawingModelConfig, Measurement, ModelConfig
from difflab.config.network import Gives, NetworkConfig, of_other_tasks
from difflab.config.sampler import SamplerConfig, refuse_inversion
from difflab.config.task import TASKS
from difflab.config.train import TrainConfig
from difflab.errors import UserError, user_errors
from difflab.networks.first_stage.config import FirstStageConfig

Part = TypeVar("Part", bound=ConditionerBase | FirstStageConfig)
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
    first_stage: FirstStageConfig | None = None
    """The frozen autoencoder in whose latents the model diffuses; null = it diffuses images."""
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
        self._refuse_other_shape()
        self._refuse_other_data()
        self._check_augmentation()
        self._refuse_unfit_conditioning()
        return self

    def _refuse_other_data(self) -> None:
        for name, conditioner in self.conditioning.items():
            conditioner.refuse_other_data(name, self.data)

    def _refuse_unfit_conditioning(self) -> None:
        if self.first_stage is None or self.first_stage.architecture is not None:
            factor = 1 if self.first_stage is None else self.first_stage.autoencoder.downsampling
            for name, conditioner in self.conditioning.items():
                conditioner.refuse_other_factor(name, factor)
        made = {}
        for name, conditioner in self.conditioning.items():
            channels = self.data.channels
            if conditioner.encodes and self.first_stage is not None:
                if self.first_stage.architecture is None:
                    # Its channels are not known yet.
                    made[name] = Makes(conditioner.makes(channels).fields)
                    continue
                channels = self.first_stage.autoencoder.latent_channels
            made[name] = conditioner.makes(channels)
        refuse_unfit(made, self.network.reads)

    def _refuse_other_shape(self) -> None:
        if self.first_stage is None:
            self.network.refuse_other_data(self.data)
            return
        self.guidance.threshold_of(latents=True)  # raises for a threshold of latents
        if self.first_stage.architecture is not None:
            self.first_stage.refuse_images(self.data.channels, self.data.image_size)
            channels, size, _ = self.first_stage.latent_shape(self.data.image_size, self.data.image_size)
            if self.network.channels != channels:
                raise ValueError(
                    f"network.channels={self.network.channels}, but latents of this first stage have {channels}: set "
                    f"network.channels={channels}"
                )
            if size < 1:
                raise ValueError(f"data.image_size={self.data.image_size} has no latent: choose another first stage")

    def _check_augmentation(self) -> None:
        augments = [name for name, one in self.conditioning.items() if one.augments]
        if augments and self.first_stage is not None:
            raise ValueError(
                f"conditioning.{augments[0]} augments images, which a first stage encodes as they are: leave it "
                "out, or set first_stage=null"
            )
        if len(augments) > 1:
            raise ValueError(f"conditioning.{augments[1]} augments the images a second time: leave one of the two out")
        unchanged = [name for name, one in self.conditioning.items() if one.shows_image]
        if augments and unchanged:
            raise ValueError(
                f"conditioning.{augments[0]} changes the image, but conditioning.{unchanged[0]} would show the "
                "unchanged one: leave one of the two out"
            )

    def described(self) -> Self:
        conditioning = {name: _described(f"conditioning.{name}", one) for name, one in self.conditioning.items()}
        first_stage = None if self.first_stage is None else _described("first_stage", self.first_stage)
        described = self.model_copy(update={"conditioning": conditioning, "first_stage": first_stage})
        with user_errors():
            # What is known of frozen parts only now.
            described._refuse_other_data()
            described._refuse_other_shape()
            described._refuse_unfit_conditioning()
        return described

    def completed(self, texts: TrainingTexts, earlier: ModelConfig | None = None) -> Self:
        theirs = earlier.conditioning if isinstance(earlier, DrawingModelConfig) else {}
        conditioning = {name: one.completed(texts, theirs.get(name)) for name, one in self.conditioning.items()}
        return self.model_copy(update={"conditioning": conditioning})

    def model(self) -> DenoisingModelConfig:
        return self.stored_as(DenoisingModelConfig)


def _described(key: str, part: Part) -> Part:
    """The part with what its files say. A UserError is raised with the key of the part in front."""
    try:
        return part.described()
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
