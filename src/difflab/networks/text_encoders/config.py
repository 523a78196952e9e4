"""Configuration of text encoders: where their weights are, and the architecture that a run records."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.axes import TEXT_ENCODERS, TEXT_TOWERS
from difflab.config.base import Config
from difflab.config.parts import FrozenConfig
from difflab.config.registry import load
from difflab.errors import UserError
from difflab.networks.towers.config import Activation, TextTowerBase
from difflab.text.config import TokenizerBase, TooLong

Positive = Annotated[int, Field(ge=1)]
Layer = Literal["last", "penultimate"]
_FILES = "difflab.interop.text_encoders"


class EncoderArchitecture(Config):
    """What has to be known of a text encoder besides its weights. Published ones have the keys of their config.json."""

    @property
    def width(self) -> int:
        """Channels of every token."""
        raise NotImplementedError

    @property
    def pooled_width(self) -> int:
        """Channels of the pooled state."""
        return self.width

    @property
    def vocabulary(self) -> int:
        """Number of token ids that it embeds."""
        raise NotImplementedError

    @property
    def context_length(self) -> int | None:
        """Most tokens of a text, None if there is no limit."""
        return None


class TextEncoderBase(Config):
    """The configuration of every text encoder."""

    kind: str
    weights: FrozenConfig
    """The file of its weights, or the folder that has it, beside its config.json and tokenizer.json."""
    architecture: EncoderArchitecture | None = None
    """Its sizes; null reads them from the file beside the weights when a run starts, which records them."""

    @property
    def described_architecture(self) -> EncoderArchitecture:
        """The architecture, which must be known."""
        assert self.architecture is not None, "it is read before anything is built"
        return self.architecture

    def in_words(self) -> str:
        """What gives the same states to the same texts, if its weights are recorded."""
        sha256 = self.weights.sha256
        return self.kind if sha256 is None else f"{self.kind} (of sha256 {sha256[:12]})"

    def described(self) -> Self:
        """Returns the configuration with the file of the weights and the architecture; the same if it has one.

        Raises UserError if there are no such files, or if they are of another kind of encoder.
        """
        if self.architecture is not None:
            return self
        weights, architecture = load(f"{_FILES}:{self.kind}")(self.weights)
        return self.model_copy(update={"weights": weights, "architecture": architecture})

    def tokenizer(self, context_length: int, too_long: TooLong) -> TokenizerBase:
        """Returns the tokenizer that is stored with the weights. Raises UserError if there is none."""
        return load(f"{_FILES}:tokenizer_beside")(self.weights, context_length, too_long)

    def fitting_tokenizer(
        self, context_length: int, too_long: TooLong, given: TokenizerBase | None = None
    ) -> TokenizerBase:
        """Returns the `given` tokenizer, or that which is stored with the weights, of an encoder that is `described`.

        Raises UserError if the encoder takes fewer tokens or other ones.
        """
        sizes = self.described_architecture
        if sizes.context_length is not None and context_length > sizes.context_length:
            raise UserError(
                f"context_length={context_length}, but the text encoder takes at most {sizes.context_length} tokens: "
                f"set context_length={sizes.context_length}"
            )
        tokenizer = given or self.tokenizer(context_length, too_long)
        if tokenizer.vocabulary > sizes.vocabulary:
            raise UserError(
                f"the tokenizer has {tokenizer.vocabulary} token ids, but the text encoder embeds {sizes.vocabulary}: "
                "they do not belong together"
            )
        return tokenizer


class _PositionedArchitecture(EncoderArchitecture):
    """Of encoders of transformers that learn an embedding for each position."""

    vocab_size: Positive
    hidden_size: Positive
    num_attention_heads: Positive
    max_position_embeddings: Positive

    @property
    def width(self) -> int:
        return self.hidden_size

    @property
    def vocabulary(self) -> int:
        return self.vocab_size

    @property
    def context_length(self) -> int:
        return self.max_position_embeddings

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads")
        return self


class BertArchitecture(_PositionedArchitecture):
    """Of transformers' `BertModel`, with its defaults.

    vocab_size: number of token ids.
    hidden_size: channels of every token.
    num_hidden_layers: number of blocks.
    num_attention_heads: attention heads of each block.
    intermediate_size: width of the hidden layer of each perceptron.
    hidden_act: its activation.
    max_position_embeddings: most tokens of a text.
    type_vocab_size: number of embeddings that tell the parts of a text, of which the first is used.
    layer_norm_eps: added to variances.
    """

    vocab_size: Positive = 30522
    hidden_size: Positive = 768
    num_hidden_layers: Positive = 12
    num_attention_heads: Positive = 12
    intermediate_size: Positive = 3072
    hidden_act: Literal["gelu", "gelu_new", "relu", "silu"] = "gelu"
    max_position_embeddings: Positive = 512
    type_vocab_size: Positive = 2
    layer_norm_eps: Annotated[float, Field(gt=0)] = 1e-12


@TEXT_ENCODERS.register("difflab.networks.text_encoders.bert:build")
class BertEncoderConfig(TextEncoderBase):
    """BERT and sentence models made of it, such as MiniLM (Devlin et al. 2019; Reimers and Gurevych 2019)."""

    kind: Literal["bert"]
    architecture: BertArchitecture | None = None
    """The keys of its config.json; null reads them when a run starts, which records them."""
    pooling: Literal["unit_mean", "mean", "first"] = "unit_mean"
    """The pooled state: the mean of the text's tokens, unit_mean divided by its length (MiniLM); first: of [CLS]."""


class T5Architecture(EncoderArchitecture):
    """Of transformers' `T5EncoderModel`, with its defaults.

    vocab_size: number of token ids.
    d_model: channels of every token.
    d_kv: channels of each attention head.
    d_ff: width of the hidden layer of each perceptron.
    num_layers: number of blocks.
    num_heads: attention heads of each block.
    relative_attention_num_buckets: number of groups of distances between tokens.
    relative_attention_max_distance: distance from which all are one group.
    layer_norm_epsilon: added to mean squares.
    feed_forward_proj: the perceptron: its activation, gated or not.
    """

    vocab_size: Positive = 32128
    d_model: Positive = 512
    d_kv: Positive = 64
    d_ff: Positive = 2048
    num_layers: Positive = 6
    num_heads: Positive = 8
    relative_attention_num_buckets: Positive = 32
    relative_attention_max_distance: Positive = 128
    layer_norm_epsilon: Annotated[float, Field(gt=0)] = 1e-6
    feed_forward_proj: Literal["relu", "gated-gelu", "gated-silu"] = "relu"

    @property
    def width(self) -> int:
        return self.d_model

    @property
    def vocabulary(self) -> int:
        return self.vocab_size


@TEXT_ENCODERS.register("difflab.networks.text_encoders.t5:build")
class T5EncoderConfig(TextEncoderBase):
    """The encoder of T5, which Imagen is conditioned on (Raffel et al. 2020); pooled as the mean of the tokens."""

    kind: Literal["t5"]
    architecture: T5Architecture | None = None
    """The keys of its config.json; null reads them when a run starts, which records them."""


class TransformersCLIPArchitecture(_PositionedArchitecture):
    """Of the text half of transformers' `CLIPModel`, with its defaults.

    vocab_size: number of token ids.
    hidden_size: channels of every token.
    intermediate_size: width of the hidden layer of each perceptron.
    num_hidden_layers: number of blocks.
    num_attention_heads: attention heads of each block.
    max_position_embeddings: most tokens of a text.
    hidden_act: the activation of each perceptron.
    layer_norm_eps: added to variances.
    eos_token_id: the id at the end of a text; 2 stands for the highest id in it, as older versions wrote it.
    projection_dim: width of the embedding of a text; null = there is no projection.
    """

    vocab_size: Positive = 49408
    hidden_size: Positive = 512
    intermediate_size: Positive = 2048
    num_hidden_layers: Positive = 12
    num_attention_heads: Positive = 8
    max_position_embeddings: Positive = 77
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    eos_token_id: Annotated[int, Field(ge=0)] = 49407
    projection_dim: Positive | None = None

    @property
    def pooled_width(self) -> int:
        return self.projection_dim or self.hidden_size


@TEXT_ENCODERS.register("difflab.networks.text_encoders.transformers_clip:build")
class TransformersCLIPEncoderConfig(TextEncoderBase):
    """The text tower of a CLIP of transformers (Radford et al. 2021); pooled at the end of the text, and projected."""

    kind: Literal["transformers_clip"]
    architecture: TransformersCLIPArchitecture | None = None
    """The keys of its config.json; null reads them when a run starts, which records them."""
    layer: Layer = "last"
    """The tokens: last, after the final norm; penultimate, before the last block, without a norm."""


class DifflabCLIPArchitecture(EncoderArchitecture):
    """Of the text tower of a CLIP of difflab, as in its network.

    text: the tower.
    activation: of its blocks.
    embedding_dim: width of the embedding of a text.
    """

    text: Annotated[TextTowerBase, TEXT_TOWERS]
    activation: Activation
    embedding_dim: Positive

    @property
    def width(self) -> int:
        return self.text.token_width

    @property
    def pooled_width(self) -> int:
        return self.embedding_dim

    @property
    def vocabulary(self) -> int:
        return self.text.vocabulary

    @property
    def context_length(self) -> int:
        return self.text.context_length


@TEXT_ENCODERS.register("difflab.networks.text_encoders.difflab_clip:build")
class DifflabCLIPEncoderConfig(TextEncoderBase):
    """The text tower of a CLIP that difflab trained or imported; pooled at the end of the text, and projected."""

    kind: Literal["difflab_clip"]
    weights: FrozenConfig
    """Its run directory, its exported folder, or the file of weights in it."""
    architecture: DifflabCLIPArchitecture | None = None
    """Its text tower; null reads it from the configuration of the CLIP when a run starts, which records it."""
    layer: Layer = "last"
    """The tokens: last, after the final norm; penultimate, before the last block, without a norm."""

    def tokenizer(self, context_length: int, too_long: TooLong) -> TokenizerBase:
        return load(f"{_FILES}:tokenizer_of_clip")(self.weights, context_length, too_long)


TextEncoderConfig = Annotated[TextEncoderBase, TEXT_ENCODERS]
"""One text encoder, discriminated by `kind`."""
