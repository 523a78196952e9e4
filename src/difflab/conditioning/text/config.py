"""Configuration of the conditioners that read captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from difflab.conditioning.config import ConditionerBase
from difflab.conditioning.tokens.config import Positive, TokenTransformerBase
from difflab.config.axes import CONDITIONERS
from difflab.config.fitting import Makes
from difflab.config.learning import TrainingTexts
from difflab.networks.text_encoders.config import TextEncoderConfig
from difflab.text.config import TokenizerConfig, TooLong

NullCondition = Literal["empty", "learned"]

PROMPTS = "'prompts=[\"a red circle\"]'"
"""How a command line gives captions."""


class TrainedTextBase(ConditionerBase):
    """The options of every conditioner whose text encoder is trained with the network."""

    reads_captions: ClassVar[bool] = True
    given_by: ClassVar[str | None] = PROMPTS

    tokenizer: TokenizerConfig
    """How captions become token ids."""

    @property
    def learns(self) -> bool:
        return self.tokenizer.learns

    @property
    def untold(self) -> Mapping[str, Any]:
        return {"tokenizer": self.tokenizer.in_words()}

    def completed(self, texts: TrainingTexts, earlier: ConditionerBase | None = None) -> Self:
        theirs = earlier.tokenizer if isinstance(earlier, TrainedTextBase) else None
        return self.model_copy(update={"tokenizer": self.tokenizer.completed(texts.captions, theirs)})


@CONDITIONERS.register("difflab.conditioning.text.transformer:build")
class TextTransformerConditionerConfig(TrainedTextBase):
    """A text transformer that is trained with the network (GLIDE): its tokens, and the last of them pooled."""

    kind: Literal["text_transformer"]
    width: Positive
    """Channels of every token, equal to network.context_channels."""
    layers: Positive
    """Number of blocks."""
    heads: Positive
    """Attention heads of each block."""
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a training sample gets the empty caption instead (GLIDE's fine-tuning: 0.2)."""
    checkpoint_activations: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""

    def makes(self, channels: int) -> Makes:
        return Makes(("vector", "tokens"), {"tokens": self.width})

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}: choose another number")
        return self


@CONDITIONERS.register("difflab.conditioning.text.token_transformer:build")
class TokenTransformerConditionerConfig(TrainedTextBase, TokenTransformerBase):
    """A text transformer that is trained with the network (latent diffusion): tokens alone, padding included."""

    kind: Literal["token_transformer"]
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a training sample gets the empty caption instead."""


@CONDITIONERS.register("difflab.conditioning.text.encoder:build")
class TextEncoderConditionerConfig(ConditionerBase):
    """A frozen text encoder: its tokens and its pooled state, projected by layers that are trained (Imagen), or its
    tokens as they are (Stable Diffusion)."""

    reads_captions: ClassVar[bool] = True
    given_by: ClassVar[str | None] = PROMPTS

    kind: Literal["text_encoder"]
    encoder: TextEncoderConfig
    """The encoder, whose weights are never trained nor copied."""
    context_length: Annotated[int, Field(ge=3)] = 77
    """Tokens per caption, with its start and end; shorter ones are padded, and padding is not attended to."""
    too_long: TooLong = "refuse"
    """Whether captions with more tokens are refused or truncated."""
    tokenizer: TokenizerConfig | None = None
    """How captions become token ids; null is the encoder's own, which a run records."""
    width: Positive | None
    """Channels of every token for the network, equal to network.context_channels, to which they are projected; null =
    the encoder's tokens as they are, all of which are attended to, and no pooled state (Stable Diffusion)."""
    pooled: bool = True
    """Whether the pooled state joins the time embedding, as well as the tokens the attention, if there is a width."""
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a training sample gets the null instead of its caption."""
    null_condition: NullCondition = "empty"
    """The null: empty = the empty caption through the encoder (GLIDE); learned = tokens and a vector of their own."""

    @property
    def learns(self) -> bool:
        return self.tokenizer is None or self.encoder.architecture is None

    @property
    def untold(self) -> Mapping[str, Any]:
        tokenizer = {} if self.tokenizer is None else {"tokenizer": self.tokenizer.in_words()}
        return {**tokenizer, "encoder": self.encoder.in_words()}

    def described(self) -> Self:
        if not self.learns:
            return self
        encoder = self.encoder.described()
        tokenizer = encoder.fitting_tokenizer(self.context_length, self.too_long, self.tokenizer)
        return self.model_copy(update={"encoder": encoder, "tokenizer": tokenizer})

    def makes(self, channels: int) -> Makes:
        if self.width is not None:
            vector = ("vector",) if self.pooled else ()
            return Makes((*vector, "tokens", "token_mask"), {"tokens": self.width})
        sizes = self.encoder.architecture
        return Makes(("tokens",), {} if sizes is None else {"tokens": sizes.width})

    @model_validator(mode="after")
    def _null_can_be_learned(self) -> Self:
        if self.width is None and self.null_condition == "learned":
            raise ValueError("null_condition=learned needs a width, to which tokens are projected; set it to empty")
        return self

    @model_validator(mode="after")
    def _tokenizer_fits(self) -> Self:
        if self.tokenizer is not None and self.tokenizer.learns:
            raise ValueError(
                f"tokenizer.kind={self.tokenizer.kind} is learned from captions, but the encoder has its own: set "
                "tokenizer=null"
            )
        for key in ("context_length", "too_long") if self.tokenizer is not None else ():
            ours, theirs = getattr(self, key), getattr(self.tokenizer, key)
            if ours != theirs:
                raise ValueError(f"{key}={ours} but tokenizer.{key}={theirs}; set both alike")
        return self
