"""Configuration of CLIP: its two towers, and how images are normalized for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from difflab.config.axes import IMAGE_TOWERS, NETWORKS, TEXT_TOWERS
from difflab.config.base import Config
from difflab.config.data import DataConfig
from difflab.config.network import Gives, NetworkBase

Positive = Annotated[int, Field(ge=1)]
Activation = Literal["quick_gelu", "gelu"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the images that OpenAI trained on (openai/CLIP, clip.py)."""

_VIT_SIZES = {
    (192, 12): "Ti",
    (384, 12): "S",
    (768, 12): "B",
    (1024, 24): "L",
    (1280, 32): "H",
    (1408, 40): "g",
    (1664, 48): "bigG",
}
"""Width and layers -> the size, as in ViT-B/32."""
_RESNETS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3, 64): "RN50",
    (3, 4, 23, 3, 64): "RN101",
    (4, 6, 10, 6, 80): "RN50x4",
    (6, 8, 18, 8, 96): "RN50x16",
    (3, 15, 36, 10, 128): "RN50x64",
}
"""Depths and width -> the name (Radford et al. 2021, table 19)."""
_NOT_ARCHITECTURE = {"checkpoint_activations", "mlp_ratio"}
"""Options of towers that do not affect what they compute, or are determined in another way."""


class ImageTowerBase(Config):
    """The configuration of every image tower."""

    kind: str

    @property
    def normalizes_batches(self) -> bool:
        """Whether an image's output depends on the others of its batch while it is trained."""
        return False

    def refuse_size(self, image_size: int) -> None:
        """Raises ValueError if the tower cannot take images of that many pixels per side."""

    def in_words(self) -> str:
        """Its published name where it has one, as ViT-B/32."""
        return self.kind


class TextTowerBase(Config):
    """The configuration of every text tower."""

    kind: str
    context_length: Positive = 77
    """Tokens of a text, with the start and the end; longer texts are truncated or refused."""
    vocabulary: Positive = 49408
    """Number of token ids, those of the tokenizer."""

    @property
    def token_width(self) -> int:
        """Channels of every token that it outputs."""
        raise NotImplementedError


class TransformerBase(Config):
    """The options of a tower of transformer blocks."""

    width: Positive
    """Channels of every token."""
    layers: Positive
    """Number of blocks."""
    heads: Positive
    """Attention heads of each block."""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    """Width of the hidden layer of each perceptron, as a multiple of the width."""
    checkpoint_activations: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""

    @property
    def hidden(self) -> int:
        """Width of the hidden layer of each perceptron."""
        return int(self.width * self.mlp_ratio)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}: choose another number")
        return self


@IMAGE_TOWERS.register("difflab.networks.towers.vit:build")
class ViTConfig(TransformerBase, ImageTowerBase):
    """A Vision Transformer with a class token (CLIP's ViT-B/32 and others)."""

    kind: Literal["vit"]
    patch_size: Positive
    """Pixels per side of a patch, which divide the image size."""

    def in_words(self) -> str:
        size = _VIT_SIZES.get((self.width, self.layers))
        if size is None:
            return f"a ViT of {self.layers} layers of {self.width} channels on patches of {self.patch_size} pixels"
        return f"ViT-{size}/{self.patch_size}"

    def refuse_size(self, image_size: int) -> None:
        if image_size % self.patch_size:
            raise ValueError(f"image_size={image_size} is not a multiple of network.image.patch_size={self.patch_size}")


@IMAGE_TOWERS.register("difflab.networks.towers.resnet:build")
class ResNetConfig(ImageTowerBase):
    """A ResNet with three convolutions as its stem and an attention pool (CLIP's RN50 and others)."""

    kind: Literal["resnet"]
    depths: Annotated[list[Positive], Field(min_length=4, max_length=4)]
    """Blocks of the four stages."""
    width: Annotated[int, Field(ge=2, multiple_of=2)]
    """Channels of the stem, and of the 3x3 convolutions of the first stage."""
    heads: Positive
    """Attention heads of the pool."""

    @property
    def normalizes_batches(self) -> bool:
        return True

    def in_words(self) -> str:
        name = _RESNETS.get((*self.depths, self.width))
        return name or f"a ResNet of {'-'.join(map(str, self.depths))} blocks, {self.width} channels wide"

    def refuse_size(self, image_size: int) -> None:
        if image_size % 32:
            raise ValueError(f"image_size={image_size} is not a multiple of 32, as network.image.kind=resnet needs it")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if 32 * self.width % self.heads:
            raise ValueError(f"the pool of 32 * width={32 * self.width} channels cannot have heads={self.heads}")
        return self


@TEXT_TOWERS.register("difflab.networks.towers.text:build")
class TextTransformerConfig(TransformerBase, TextTowerBase):
    """A causal transformer, pooled at the end of the text (CLIP)."""

    kind: Literal["transformer"] = "transformer"

    @property
    def token_width(self) -> int:
        return self.width


@NETWORKS.register("difflab.networks.towers.clip:build")
class CLIPConfig(NetworkBase):
    """Two towers that embed images and texts in one space (CLIP, Radford et al. 2021)."""

    gives: ClassVar[Gives] = "embeddings"

    kind: Literal["clip"]
    embedding_dim: Positive
    """Width of the shared embedding space."""
    image: Annotated[ImageTowerBase, IMAGE_TOWERS]
    """The image tower."""
    text: Annotated[TextTowerBase, TEXT_TOWERS]
    """The text tower."""
    activation: Activation
    """Of the transformer blocks, and part of the weights: quick_gelu in OpenAI's, gelu in most others."""
    mean: Annotated[list[float], Field(min_length=1)] = Field(default_factory=lambda: list(OPENAI_MEAN))
    """Mean of each channel of images within [0, 1]."""
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        default_factory=lambda: list(OPENAI_STD)
    )
    """Standard deviation of each channel of images within [0, 1]."""
    log_scale_init: float = math.log(1 / 0.07)
    """The logarithm of the initial factor on the cosines; ln(1 / 0.07) in CLIP, ln 10 in SigLIP."""
    logit_bias_init: float | None = None
    """Initial value of a learned bias of the logits, null for none; -10 in SigLIP."""

    @property
    def text_sizes(self) -> Mapping[str, int]:
        return {"context_length": self.text.context_length, "vocabulary": self.text.vocabulary}

    def architecture(self, image_size: int) -> dict[str, object]:
        facts: dict[str, object] = {
            "channels": self.channels,
            "embedding_dim": self.embedding_dim,
            "activation": self.activation,
            # Programs round them differently.
            "mean": [round(value, 6) for value in self.mean],
            "std": [round(value, 6) for value in self.std],
            "logit_bias": self.logit_bias_init is not None,
        }
        for name, tower in (("image", self.image), ("text", self.text)):
            own = {key: value for key, value in tower.model_dump().items() if key not in _NOT_ARCHITECTURE}
            if isinstance(tower, TransformerBase):
                own["hidden"] = tower.hidden
            facts |= {f"{name}.{key}": value for key, value in own.items()}
        return facts

    @property
    def untold(self) -> Mapping[str, Any]:
        facts = self.architecture(0)
        return {key: facts[key] for key in ("activation", "mean", "std", "image.heads", "text.heads") if key in facts}

    def in_words(self, image_size: int) -> tuple[str, ...]:
        shape = f"{self.text.context_length} tokens, {self.embedding_dim} dimensions"
        return f"CLIP with {self.image.in_words()} at {image_size} pixels, {shape}", f"activation {self.activation}"

    @property
    def normalizes_batches(self) -> bool:
        return self.image.normalizes_batches

    def refuse_other_data(self, data: DataConfig) -> None:
        super().refuse_other_data(data)
        self.image.refuse_size(data.image_size)

    @model_validator(mode="after")
    def _one_per_channel(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(f"{name} has {len(values)} numbers for channels={self.channels}; give one per channel")
        return self
