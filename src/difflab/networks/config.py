"""Configuration of difflab's networks: U-Nets that denoise, and their encoders, which classify noisy images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from difflab.config.axes import INITIALISATIONS, NETWORKS, POOLS, RESAMPLINGS, TIME_EMBEDDINGS
from difflab.config.base import Config
from difflab.config.data import DataConfig
from difflab.config.fitting import Reads
from difflab.config.network import Gives, NetworkBase
from difflab.config.unet_sizing import Sizing

Positive = Annotated[int, Field(ge=1)]
Stem = Literal["base", "first_level"]

for _name in ("asymmetric_conv", "symmetric_conv", "pool", "residual"):
    RESAMPLINGS.register(_name, f"difflab.networks.resampling:{_name.upper()}")
for _name in ("ddpm", "adm", "sr3"):
    TIME_EMBEDDINGS.register(_name, f"difflab.networks.embedding:{_name}")
for _name in ("ddpm", "adm", "orthogonal"):
    INITIALISATIONS.register(_name, f"difflab.networks.init:{_name}")
for _name in ("adaptive", "attention", "spatial", "spatial_v2"):
    POOLS.register(_name, f"difflab.networks.pools:{_name}")


_OPTIONS_OF_FIELDS = {"concat": "concat_channels", "tokens": "context_channels", "pooled": "pooled_channels"}
"""The fields of a conditioning that a U-Net reads on request, and the option that requests it."""

_NOT_ARCHITECTURE = {
    *("dropout", "init", "checkpoint_activations"),
    *("channel_mult", "stem", "blocks_per_level", "attention_heads", "attention_head_channels"),
}
"""Options that do not affect what the trained network computes, or are determined in another way."""


class UNetBase(NetworkBase):
    """Levels of residual blocks and self-attention (DDPM, improved-diffusion, ADM and others): the options shared
    by whole U-Nets and encoders.

    In a file, null derives patch_size, pad, channel_mult, attention_resolutions and norm_groups from the size of the
    images (`difflab.config.unet_sizing`).

    patch_size:              the network runs on size / patch_size pixels (space to depth), DDPM's `block_size`.
    pad:                     pad images whose side is no multiple of `size_multiple` with zeros, half on each side, and
                             crop the output; otherwise they are refused.
    base_channels:           width of multiplier 1.
    stem:                    width of the first convolution. base: base_channels (DDPM, SR3, EDM's SongUNet);
                             first_level: that of the first level (ADM). By default as in the code whose time_embedding
                             is used: first_level for adm, else base.
    channel_mult:            width of each level, as a multiple of base_channels; each level halves the grid.
    blocks_per_level:        residual blocks per encoder level, one number or one per level (a decoder has one more).
    attention_resolutions:   grid sizes, in pixels of the network's own grid, where each block is followed by attention.
    attention_heads:         number of heads of every attention, or null if attention_head_channels is set.
    attention_head_channels: width of each head, or null if attention_heads is set.
    middle_attention:        attention between the two middle blocks.
    dropout:                 in every residual block, before its last convolution.
    adaptive_norm:           the time embedding scales and shifts the second norm (ADM) instead of being added (DDPM).
    resample:                asymmetric_conv: strided conv padded right and below, nearest + conv (DDPM);
                             symmetric_conv: the same padded on all sides; pool: mean of 2x2 and nearest, no weights;
                             residual: inside a residual block (BigGAN, ADM).
    time_embedding:          ddpm: [sin, cos] with ln(1e4)/(half - 1); adm: [cos, sin] with ln(1e4)/half;
                             sr3: [sin, cos] with ln(1e4)/half.
    embedding_mult:          width of the time embedding as a multiple of base_channels; its hidden layer always has 4.
                             1 in Janspiry's SR3.
    embedding_activation:    SiLU between the time embedding and each block's own layer for it; none in Janspiry's SR3.
    qkv_bias:                query, key and value of every attention have a bias; not in Janspiry's SR3.
    norm_groups, norm_eps:   of every GroupNorm.
    residual_scale:          factor on (shortcut + branch) of a residual block; 1/sqrt(2) in SR3.
    init:                    ddpm: variance scaling (fan average, uniform), last layers scaled by 1e-10;
                             adm: torch's own, last layers zero; orthogonal: every matrix, none zero (Janspiry's SR3).
    checkpoint_activations:  recompute each block in the backward pass: less memory, about a third more time.
    """

    patch_size: Positive = 1
    pad: bool = False
    base_channels: Annotated[int, Field(ge=4)]
    channel_mult: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    blocks_per_level: Positive | list[Positive]
    attention_resolutions: list[Positive] = Field(default_factory=list)
    attention_heads: Positive | None = 1
    attention_head_channels: Positive | None = None
    middle_attention: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    adaptive_norm: bool = False
    resample: Annotated[str, RESAMPLINGS] = "asymmetric_conv"
    time_embedding: Annotated[str, TIME_EMBEDDINGS] = "ddpm"
    embedding_mult: Positive = 4
    embedding_activation: bool = True
    qkv_bias: bool = True
    stem: Stem = Field(default_factory=lambda given: "first_level" if given.get("time_embedding") == "adm" else "base")
    norm_groups: Positive = 32
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    residual_scale: Annotated[float, Field(gt=0)] = 1.0
    init: Annotated[str, INITIALISATIONS] = "ddpm"
    checkpoint_activations: bool = False

    @classmethod
    def fitted(cls, values: Mapping[str, Any], image_size: int, channels: int) -> dict[str, Any]:
        names = [field.name for field in dataclasses.fields(Sizing)]
        left = [name for name in names if name in values and values[name] is None]
        sizing = Sizing.of(values, image_size) if left else None
        return {name: getattr(sizing, name) for name in left}

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [int(self.base_channels * mult) for mult in self.channel_mult]

    @property
    def stem_channels(self) -> int:
        """Width of the first convolution's output."""
        return self.base_channels if self.stem == "base" else self.widths[0]

    @property
    def depths(self) -> list[int]:
        """Residual blocks of each encoder level."""
        given = self.blocks_per_level
        return [given] * len(self.channel_mult) if isinstance(given, int) else list(given)

    @property
    def embedding_channels(self) -> int:
        return self.embedding_mult * self.base_channels

    @property
    def size_multiple(self) -> int:
        """Image height and width must be multiples of this, or are padded."""
        return self.patch_size * 2 ** (len(self.channel_mult) - 1)

    @property
    def pads(self) -> bool:
        return self.pad

    def padded(self, image_size: int) -> int:
        """Returns pixels per side of the images after padding, if they are padded."""
        return -(-image_size // self.size_multiple) * self.size_multiple if self.pad else image_size

    @property
    def reads(self) -> Reads:
        return Reads(("vector",))

    def architecture(self, image_size: int) -> dict[str, object]:
        facts = {key: value for key, value in self.model_dump().items() if key not in _NOT_ARCHITECTURE}
        facts["attention_resolutions"] = sorted(self.attention_resolutions)
        if len(self.widths) == 1:
            del facts["resample"]
        return facts | {
            "stem_channels": self.stem_channels,
            "widths": self.widths,
            "depths": self.depths,
            "heads": self._heads(image_size),
        }

    def _heads(self, image_size: int) -> dict[int, int]:
        """Grid size of each level with attention, and of the middle -> its number of heads."""
        grids = [self.padded(image_size) // self.patch_size // 2**level for level in range(len(self.widths))]
        attended = (
            {*self.attention_resolutions, *grids[-1:]} if self.middle_attention else {*self.attention_resolutions}
        )
        return {
            grid: self.attention_heads or width // (self.attention_head_channels or width)
            for grid, width in zip(grids, self.widths, strict=True)
            if grid in attended
        }

    @property
    def attends(self) -> bool:
        """Whether any block is attention."""
        return bool(self.attention_resolutions) or self.middle_attention

    @model_validator(mode="after")
    def _possible(self) -> UNetBase:
        if len(self.depths) != len(self.channel_mult):
            raise ValueError(
                f"blocks_per_level has {len(self.depths)} entries and channel_mult {len(self.channel_mult)}; "
                "give one number, or one per level"
            )
        if (self.attention_heads is None) == (self.attention_head_channels is None):
            raise ValueError("give exactly one of attention_heads and attention_head_channels (set the other to null)")
        if self.base_channels % 2:
            raise ValueError(f"base_channels={self.base_channels} must be even: the time embedding is half sines")
        for width in (self.stem_channels, *self.widths):
            if width % self.norm_groups:
                raise ValueError(
                    f"a level of {width} channels cannot be normalised in norm_groups={self.norm_groups} groups; "
                    "choose base_channels * channel_mult as multiples of norm_groups"
                )
        return self


class TransformerConfig(Config):
    """Transformer blocks in place of each attention of a U-Net: self-attention, attention to the tokens (to the places
    again if context_channels is null), a feed-forward layer (Rombach et al. 2022, appendix E.2.1). The width and
    number of heads are those of the attention; nothing of them has a bias for query, key and value.

    depth:      number of blocks in a row, one number or one per level; the middle has that of the last level.
    projection: how files of official codes store the layers around the blocks, which compute the same: convolution of
                1x1 (latent diffusion, Stable Diffusion 1), or linear (Stable Diffusion 2).
    norm_eps:   of the GroupNorm before the blocks.
    """

    depth: Positive | list[Annotated[int, Field(ge=0)]] = 1
    projection: Literal["convolution", "linear"] = "convolution"
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6


@NETWORKS.register("difflab.networks.unet:build")
class UNetConfig(UNetBase):
    """A whole U-Net, which denoises; it has `channels` inputs and outputs, twice the outputs if diffusion learns its
    variance.

    concat_channels:         channels concatenated to the input (`Conditioning.concat`): a low-resolution image, a mask.
    context_channels:        width of the tokens that attention also sees (`Conditioning.tokens`), null for none.
    pooled_channels:         width of an embedding (`Conditioning.pooled`) that two layers project and add to the time
                             embedding, null for none.
    transformer:             transformer blocks in place of each attention (latent diffusion), null for attention alone.
    decoder_attention_heads: heads of the decoder's attention (`num_heads_upsample` of the official code), null for
                             attention_heads.
    skip_scale:              factor on the encoder's outputs in the skip connections; 1/sqrt(2) in Imagen.
    """

    gives: ClassVar[Gives] = "images"

    kind: Literal["unet"] = "unet"
    concat_channels: Annotated[int, Field(ge=0)] = 0
    context_channels: Positive | None = None
    pooled_channels: Positive | None = None
    transformer: TransformerConfig | None = None
    decoder_attention_heads: Positive | None = None
    skip_scale: Annotated[float, Field(gt=0)] = 1.0

    @property
    def reads(self) -> Reads:
        channels = {
            "concat": self.concat_channels,
            "tokens": self.context_channels,
            "pooled": self.pooled_channels,
        }
        needed = {field: width for field, width in channels.items() if width}
        fields = ["vector", "concat", *(field for field in ("tokens", "pooled") if field in needed)]
        if "tokens" in needed:
            fields.append("token_mask")
        keys = {field: f"network.{_OPTIONS_OF_FIELDS[field]}" for field in channels}
        return Reads(fields, tuple(needed), {"concat": self.concat_channels, **needed}, keys)

    def architecture(self, image_size: int) -> dict[str, object]:
        facts = super().architecture(image_size)
        if self.transformer is not None:
            depths = dict(zip(range(len(self.widths)), self.transformer_depths, strict=True))
            facts["transformer"] = {"norm_eps": self.transformer.norm_eps, "depths": depths}
        return facts

    @property
    def transformer_depths(self) -> list[int]:
        """Transformer blocks in a row at each level, where there is attention; 0 without `transformer`."""
        depth = 0 if self.transformer is None else self.transformer.depth
        return [depth] * len(self.channel_mult) if isinstance(depth, int) else list(depth)

    @model_validator(mode="after")
    def _transformers_fit_the_levels(self) -> UNetConfig:
        if self.transformer is None:
            return self
        depths = self.transformer_depths
        if len(depths) != len(self.channel_mult):
            raise ValueError(
                f"transformer.depth has {len(depths)} entries and channel_mult {len(self.channel_mult)}; give one "
                "number, or one per level"
            )
        for option, value in (("qkv_bias", True), ("residual_scale", 1.0)):
            if getattr(self, option) != value:
                raise ValueError(
                    f"{option}={getattr(self, option)} does not apply to transformer blocks; leave it out, or set "
                    "transformer=null"
                )
        return self

    @model_validator(mode="after")
    def _tokens_are_attended_to(self) -> UNetConfig:
        if self.context_channels is not None and not self.attends:
            raise ValueError(
                f"context_channels={self.context_channels} needs attention to its tokens, and there is none: list "
                "attention_resolutions, set middle_attention=true, or context_channels=null"
            )
        return self

    @model_validator(mode="after")
    def _decoder_counts_heads(self) -> UNetConfig:
        if self.decoder_attention_heads is not None and self.attention_heads is None:
            raise ValueError(
                f"decoder_attention_heads={self.decoder_attention_heads} needs attention_heads, but "
                f"attention_head_channels={self.attention_head_channels} fixes the width of the heads everywhere; "
                "set one of the two to null"
            )
        return self


@NETWORKS.register("difflab.networks.unet_encoder:build")
class UNetEncoderConfig(UNetBase):
    """The encoder and the middle of a U-Net, followed by a pool that outputs logits: ADM's noisy classifier.

    classes: number of logits, equal to data.classes.
    pool:    from features to logits. adaptive: mean over pixels, a linear layer; attention: the mean attends to the
             pixels (CLIP's ResNets, ADM's released classifiers), which fixes the image size; spatial: means of every
             step's output, two layers; spatial_v2: the same with a norm in between.
    """

    gives: ClassVar[Gives] = "logits"

    kind: Literal["unet_encoder"]
    classes: Positive
    pool: Annotated[str, POOLS]

    @property
    def logits(self) -> int:
        return self.classes

    @field_validator("classes", mode="before")
    @classmethod
    def _data_has_classes(cls, classes: object) -> object:
        if classes is None:
            raise ValueError(
                "the data has no classes; set data.classes to their number, or make it with classes (difflab data make "
                "... classes=top)"
            )
        return classes

    def refuse_other_data(self, data: DataConfig) -> None:
        super().refuse_other_data(data)
        if self.classes != data.classes:
            raise ValueError(
                f"network.classes={self.classes} but data.classes={data.classes}; "
                "set data.classes to the number of classes and leave network.classes out"
            )
