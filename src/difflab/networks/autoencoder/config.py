"""Configuration of autoencoders: encoder, decoder, and what regularises the latent between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from difflab.config.axes import NETWORKS, REGULARIZERS
from difflab.config.base import Config
from difflab.config.data import DataConfig
from difflab.config.network import Gives, NetworkBase

Positive = Annotated[int, Field(ge=1)]

_NOT_ARCHITECTURE = {"dropout", "checkpoint_activations", "channel_mult", "attention_factors", "regularizer"}
"""Options that do not affect what the trained network computes, or are determined in another way."""


class RegularizerBase(Config):
    """The configuration of every regulariser.

    term:    the name under which its loss is logged.
    summed:  whether its loss, and therefore the error that it is added to, is a sum over an image, and not a mean.
    """

    term: ClassVar[str] = "regularization"
    summed: ClassVar[bool] = False

    kind: str
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the regularisation in the loss."""

    @property
    def architecture(self) -> Mapping[str, object]:
        """What determines the shapes and the computation of the trained network."""
        return {"kind": self.kind, "codes": self.codebook_size}

    @property
    def moments_per_channel(self) -> int:
        """Numbers that describe each channel of the latent at each place."""
        return 1

    @property
    def codebook_size(self) -> int | None:
        """The number of codes; None without a codebook."""
        return None

    @property
    def in_words(self) -> str:
        """What it is, in a few words."""
        return self.kind


@REGULARIZERS.register("difflab.networks.autoencoder.gaussian:build")
class KLConfig(RegularizerBase):
    """A diagonal Gaussian at each place, pulled towards the standard normal (Kingma and Welling 2013)."""

    term: ClassVar[str] = "kl"
    summed: ClassVar[bool] = True

    kind: Literal["kl"]
    weight: Annotated[float, Field(ge=0)] = 1e-6
    """Factor on the Kullback-Leibler divergence (summed over the latent, mean over the batch) in the loss."""

    @property
    def moments_per_channel(self) -> int:
        return 2

    @property
    def in_words(self) -> str:
        return "KL"


@REGULARIZERS.register("difflab.networks.autoencoder.quantizer:build")
class VQConfig(RegularizerBase):
    """The nearest vector of a codebook (van den Oord et al. 2017; VQGAN, Esser et al. 2021)."""

    term: ClassVar[str] = "codebook"

    kind: Literal["vq"]
    codes: Positive
    """Number of vectors in the codebook."""
    beta: Annotated[float, Field(ge=0)] = 0.25
    """Factor on one of the two terms of the codebook loss, chosen by beta_on."""
    beta_on: Literal["codebook", "commitment"] = "codebook"
    """The term with the factor. commitment: as in the paper; codebook: as in the code that trained all released models
    (`legacy=True` in taming-transformers), where it is on the other term."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the codebook loss (a mean) in the loss."""

    @property
    def codebook_size(self) -> int:
        return self.codes

    @property
    def in_words(self) -> str:
        return f"VQ with {self.codes} codes"


@NETWORKS.register("difflab.networks.autoencoder.model:build")
class AutoencoderConfig(NetworkBase):
    """A convolutional autoencoder with a regularised latent (VQGAN; latent diffusion, section 3.1)."""

    gives: ClassVar[Gives] = "reconstructions"

    kind: Literal["autoencoder"]
    base_channels: Positive = 128
    """Width of multiplier 1, and of the first convolution."""
    channel_mult: Annotated[list[Positive], Field(min_length=1)]
    """Width of each level, as a multiple of base_channels. Each level after the first halves the grid: n levels make
    f = 2^(n - 1)."""
    blocks_per_level: Positive = 2
    """Residual blocks of each encoder level; each decoder level has one more."""
    attention_factors: list[Positive] = Field(default_factory=list)
    """Levels where each block is followed by attention, as the factors by which they are smaller than the image: 16 is
    a grid of 16 pixels for images of 256. (The official `attn_resolutions` are such grids.)"""
    middle_attention: bool = True
    """Whether there is attention between the two middle blocks of encoder and decoder."""
    attention_type: Literal["vanilla", "linear"] = "vanilla"
    """vanilla: softmax over all pixels, one head; linear: in time proportional to the number of pixels, without a norm
    and without a residual connection (`LinAttnBlock`)."""
    z_channels: Positive
    """Channels between the encoder's or decoder's convolutions and the 1x1 convolutions at the latent."""
    latent_channels: Positive
    """Channels of the latent (`embed_dim`)."""
    regularizer: Annotated[RegularizerBase, REGULARIZERS]
    """What keeps the latent small: kl or vq."""
    tanh_output: bool = False
    """Whether a tanh keeps reconstructions within [-1, 1]."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """In every residual block, before its last convolution."""
    norm_groups: Positive = 32
    """Groups of every GroupNorm."""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    """Added to the variance in every GroupNorm."""
    checkpoint_activations: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""

    @property
    def widths(self) -> list[int]:
        """Channels of each level, full size first."""
        return [self.base_channels * mult for mult in self.channel_mult]

    @property
    def downsampling(self) -> int:
        """The factor f by which the latent is smaller than the image, per side."""
        return 2 ** (len(self.channel_mult) - 1)

    @property
    def size_multiple(self) -> int:
        return self.downsampling

    @property
    def takes_any_size(self) -> bool:
        return True

    @property
    def moments_channels(self) -> int:
        """Channels of what describes the latent: means and log-variances for kl, the latent itself for vq."""
        return self.latent_channels * self.regularizer.moments_per_channel

    @property
    def has_variance(self) -> bool:
        """Whether a latent has a distribution, from which it can be sampled."""
        return self.moments_channels > self.latent_channels

    @property
    def attended_levels(self) -> frozenset[int]:
        """The levels with attention after each block, 0 being the full size."""
        return frozenset(factor.bit_length() - 1 for factor in self.attention_factors)

    def architecture(self, image_size: int) -> dict[str, object]:
        facts = {key: value for key, value in self.model_dump().items() if key not in _NOT_ARCHITECTURE}
        # The weights know widths, not multiples; without attention, they do not know its type.
        facts |= {"widths": self.widths, "attended_levels": sorted(self.attended_levels)}
        if not self.attended_levels and not self.middle_attention:
            del facts["attention_type"]
        return facts | {f"regularizer.{key}": value for key, value in self.regularizer.architecture.items()}

    @property
    def untold(self) -> Mapping[str, Any]:
        return {"norm_groups": self.norm_groups, "norm_eps": self.norm_eps, "tanh_output": self.tanh_output}

    def in_words(self, image_size: int) -> tuple[str, ...]:
        latent = f"f={self.downsampling}, latents of {self.latent_channels} channels"
        return (f"autoencoder ({self.regularizer.in_words}), {latent}",)

    def refuse_other_data(self, data: DataConfig) -> None:
        super().refuse_other_data(data)
        self.refuse_size(data.image_size)

    def refuse_size(self, image_size: int) -> None:
        """Raises ValueError if images of that many pixels per side have no latent."""
        if image_size % self.downsampling:
            raise ValueError(
                f"image_size={image_size} is not a multiple of {self.downsampling}, by which network.channel_mult="
                f"{self.channel_mult} makes images smaller: choose another size, or fewer levels"
            )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        factors = [2**level for level in range(len(self.channel_mult))]
        for factor in self.attention_factors:
            if factor not in factors:
                raise ValueError(f"attention_factors has {factor}, but the levels of this network are at {factors}")
        for width in self.widths:
            if width % self.norm_groups:
                raise ValueError(
                    f"a level of {width} channels cannot be normalised in norm_groups={self.norm_groups} groups; "
                    "choose base_channels * channel_mult as multiples of norm_groups"
                )
        return self
