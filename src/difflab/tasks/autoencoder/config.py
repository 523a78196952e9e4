"""The autoencoder task: the configuration of its runs, and of the models that they leave."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, cast

from pydantic import BeforeValidator, Field, model_validator

from difflab.config.axes import PERCEPTUAL
from difflab.config.base import Config
from difflab.config.model import Measurement, NetworkModelConfig
from difflab.config.network import Gives, NetworkConfig, of_other_tasks
from difflab.config.optimizer import OptimizerConfig
from difflab.config.task import TASKS
from difflab.config.train import TrainConfig
from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.perceptual.config import PerceptualBase

AutoencodingNetwork = Annotated[NetworkConfig, BeforeValidator(of_other_tasks)]


class DiscriminatorConfig(Config):
    """The patch discriminator that reconstructions have to deceive, in training only (PatchGAN; VQGAN, section 3.1)."""

    layers: Annotated[int, Field(ge=1, le=6)] = 3
    """Convolutions that halve the resolution: with 3, each logit sees 70x70 pixels, with 2 34x34, with 1 16x16."""
    width: Annotated[int, Field(ge=1)] = 64
    """Channels after the first convolution."""
    norm: Literal["batch", "actnorm"] = "batch"
    """batch: batch normalization over all processes; actnorm: a scale and shift that the first batch sets."""
    loss: Literal["hinge", "vanilla"] = "hinge"
    """Of images and reconstructions. hinge: max(0, 1 - logit) and max(0, 1 + logit); vanilla: softplus(-logit) and
    softplus(logit)."""
    weight: Annotated[float, Field(ge=0)] = 0.5
    """Factor on the adaptive weight of the adversarial loss."""
    start: Annotated[int, Field(ge=0)] = 0
    """Batches before the discriminator is first trained, and the autoencoder against it."""
    recompute: bool = False
    """Whether the discriminator is trained on reconstructions of the autoencoder that was updated with the same batch,
    as in CompVis' code, for one more forward pass; otherwise on those from which that update was computed."""
    optimizer: OptimizerConfig
    """Its optimizer, which takes no step before the start."""

    @property
    def smallest_side(self) -> int:
        """Pixels per side of the smallest image that it has a logit for."""
        return 3 * 2**self.layers


class AutoencoderModelConfig(NetworkModelConfig):
    """An autoencoder, whose latents are the images of a latent diffusion model."""

    title: ClassVar[str] = "an autoencoder"
    measures: ClassVar[tuple[Measurement, ...]] = ("reconstructions",)

    task: Literal["autoencoder"] = "autoencoder"
    network: AutoencodingNetwork


@TASKS.register(
    AutoencoderModelConfig,
    build_model="difflab.tasks.autoencoder.build:build_model",
    build_module="difflab.tasks.autoencoder.build:build_module",
)
class AutoencoderTrainConfig(TrainConfig):
    """`task=autoencoder`: trains the first stage of latent diffusion (Rombach et al. 2022, section 3.1; VQGAN)."""

    network_gives: ClassVar[Gives] = "reconstructions"

    task: Literal["autoencoder"]
    network: AutoencodingNetwork
    """Encoder, decoder and regularizer."""
    pixel_loss: Literal["l1", "l2"] = "l1"
    """The error of pixels: l1, absolute; l2, squared."""
    perceptual: Annotated[PerceptualBase, PERCEPTUAL]
    """The distance of reconstructions besides that of their pixels."""
    perceptual_weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the perceptual distance, which is added to the error of every pixel."""
    log_variance: float = 0.0
    """The log-variance s by which errors become negative log-likelihoods, error / exp(s) + s, at the start."""
    learn_log_variance: bool = False
    """Whether s is trained. In CompVis' code it is a parameter that no optimizer has, so that it never changes."""
    discriminator: DiscriminatorConfig | None
    """The discriminator; null trains without one."""
    restart_codes_every: Annotated[int, Field(ge=1)] | None = None
    """Steps after which codes that nothing was quantised to since are put onto random latents of the batch; null leaves
    them where they are."""

    @property
    def autoencoder(self) -> AutoencoderConfig:
        """The configuration of the network."""
        # Networks that give reconstructions have the options that a training uses.
        return cast("AutoencoderConfig", self.network)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        self.network.refuse_other_data(self.data)
        adversary, size = self.discriminator, self.data.image_size
        if size < self.perceptual.smallest_side:
            raise ValueError(
                f"perceptual={self.perceptual.kind} needs images of at least {self.perceptual.smallest_side} pixels "
                f"per side, not {size}: choose perceptual=none, or larger images"
            )
        if adversary is not None and size < adversary.smallest_side:
            raise ValueError(
                f"discriminator.layers={adversary.layers} needs images of at least {adversary.smallest_side} pixels "
                f"per side, not {size}: choose fewer layers, or discriminator=null"
            )
        if self.restart_codes_every is not None and self.autoencoder.regularizer.codebook_size is None:
            raise ValueError(
                f"restart_codes_every={self.restart_codes_every}, but this network has no codebook: set "
                "restart_codes_every=null"
            )
        self.callbacks.refuse_drawing(
            "an autoencoder draws no images, it reconstructs them: choose callbacks=autoencoder"
        )
        return self

    def remarks(self, samples: int) -> list[str]:
        codes = self.autoencoder.regularizer.codebook_size
        side = self.data.image_size // self.autoencoder.downsampling
        places = samples * side**2
        if codes is None or codes <= places:
            return []
        return [
            f"note: a codebook of {codes} codes, but an epoch has only {places} places to use one ({samples} images, "
            f"{side}x{side} each): {codes - places} codes or more stay unused; give network.regularizer.codes a "
            "smaller number, or train on more images"
        ]

    def model(self) -> AutoencoderModelConfig:
        return self.stored_as(AutoencoderModelConfig)
