"""Puts the parts of a diffusers pipeline together: the configuration of the whole model, and its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from difflab.conditioning.config import ConditioningConfig
from difflab.config.guidance import GuidanceConfig
from difflab.config.sampler import SamplerConfig
from difflab.config.validate import problem_in_words
from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.errors import UserError
from difflab.interop.autoencoder_layout import autoencoder_of
from difflab.interop.latent.exported import first_stage_weights, scaling
from difflab.interop.latent.parts import LatentModel, TextTower
from difflab.interop.layout import Target
from difflab.interop.registry import import_weights
from difflab.networks.first_stage.config import FirstStageConfig
from difflab.tasks.denoising.config import DenoisingModelConfig

UNET = "unet"
"""The folder of the network in all pipelines."""


@dataclass(frozen=True)
class Pipeline:
    """What a pipeline folder at `path` says of a model.

    stage_folder: the folder of the first stage in it. scale: what latents are multiplied by.
    notes:        on how the folder was read.
    """

    path: Path
    network: Target
    stage_folder: str
    stage: Target
    scale: float
    process: DiscreteDiffusionConfig
    sampler: SamplerConfig
    guidance: GuidanceConfig
    conditioning: ConditioningConfig
    notes: tuple[str, ...]
    tower: TextTower | None = None

    def model(self) -> LatentModel:
        """The model with its weights.

        Raises UserError for parts that do not fit together, and for weights that are of other networks.
        """
        config = self.config()
        assert config.first_stage is not None, "it has one"
        unet = import_weights(self.path / UNET, self.network)
        stage = import_weights(self.path / self.stage_folder, self.stage)
        of_weights = [
            f"{name}: {note}" for name, part in ((UNET, unet), (self.stage_folder, stage)) for note in part.notes
        ]
        state = {**unet.state, **scaling(config.first_stage)}
        return LatentModel(config, state, stage.state, self.tower, (*self.notes, *of_weights))

    def config(self) -> DenoisingModelConfig:
        """The model without its weights. Raises UserError for parts that do not fit together."""
        channels, autoencoder = self.network.network.channels, autoencoder_of(self.stage)
        if channels != autoencoder.latent_channels:
            raise UserError(
                f"{self.path}: {UNET} has {channels} channels and {self.stage_folder} latents of "
                f"{autoencoder.latent_channels}: they do not belong together"
            )
        try:
            return DenoisingModelConfig(
                experiment=f"diffusers/{self.path.resolve().name}",
                image_size=self.network.image_size * autoencoder.downsampling,
                channels=autoencoder.channels,
                diffusion=self.process,
                first_stage=FirstStageConfig(weights=first_stage_weights(), architecture=autoencoder, scale=self.scale),
                network=self.network.network,
                conditioning=self.conditioning,
                sampler=self.sampler,
                guidance=self.guidance,
            )
        except ValidationError as error:
            raise UserError(f"{self.path}: {problem_in_words(error)}") from error
