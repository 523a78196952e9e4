"""Captions by a frozen text encoder: projected (Saharia et al. 2022, section 2.1; Imagen) or as its states are."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from difflab.conditioning.base import Conditioner
from difflab.conditioning.text.captions import caption_tokens
from difflab.conditioning.text.config import NullCondition, TextEncoderConditionerConfig
from difflab.diffusion.noise import SampleNoise
from difflab.networks.text_encoders.base import TextStates
from difflab.networks.text_encoders.build import build_text_encoder, states_field, states_fields, states_sha256
from difflab.networks.text_encoders.config import TextEncoderBase
from difflab.networks.towers.transformer import LayerNorm
from difflab.text.base import Tokenizer
from difflab.text.build import build_tokenizer
from difflab.types import Batch, Conditioning


class _FrozenText(Conditioner):
    """The states of a frozen text encoder of `batch["caption"]` list[str].

    If a batch has the encoder's states already (`cached_field`), or the token ids, those are used.
    """

    reads = ("caption",)
    _placed: Tensor

    def __init__(self, encoder: TextEncoderBase, tokenizer: Tokenizer, drop_rate: float) -> None:
        super().__init__(drop_rate)
        self.source, self.tokenizer = encoder, tokenizer
        self.encoder = build_text_encoder(encoder)
        # Goes where the model goes, which has perhaps no other weights here; no file fills it, so that it may not begin
        # on the meta device.
        self.register_buffer("_placed", torch.empty(0, device="cpu"), persistent=False)

    @property
    def tokenizers(self) -> Mapping[str, Tokenizer]:
        return {self.tokenizer.field: self.tokenizer}

    @functools.cached_property
    def cached_field(self) -> str:
        """The field of a batch with the encoder's tokens, made in advance; see `states_field`."""
        return states_field(self.source, self.tokenizer)

    @property
    def cached(self) -> Mapping[str, str]:
        sha256 = states_sha256(self.source, self.tokenizer)
        return dict.fromkeys(states_fields(self.cached_field).values(), sha256)

    def states(self, batch: Batch, dropped: Tensor | None) -> TextStates:
        """The states of a batch's captions; where `dropped` (bool [B]) is True, those of the empty caption."""
        device, cached = self._placed.device, self._cached(batch)
        if cached is None:
            tokens = caption_tokens(batch, self.tokenizer, device, dropped)
            return self.encoder(tokens.ids, tokens.mask)
        if dropped is None:
            return cached
        tokens = self.tokenizer([""])
        empty, chosen = self.encoder(tokens.ids.to(device), tokens.mask.to(device)), dropped.to(device)
        return TextStates(
            torch.where(chosen[:, None, None], empty.tokens, cached.tokens),
            torch.where(chosen[:, None], empty.pooled, cached.pooled),
            torch.where(chosen[:, None], empty.mask, cached.mask),
        )

    def _cached(self, batch: Batch) -> TextStates | None:
        names = states_fields(self.cached_field)
        if names["tokens"] not in batch:
            return None
        tokens, pooled = (batch[names[part]].to(self._placed) for part in ("tokens", "pooled"))
        return TextStates(tokens, pooled, batch[names["mask"]].to(self._placed.device))


class TextStatesConditioner(_FrozenText):
    """`batch["caption"]` list[str] -> tokens [B, L, W], the states of a frozen text encoder as they are.

    The network attends to all L tokens, without a mask, also to the padding (Rombach et al. 2022; Stable Diffusion).
    The null is the empty caption. It has no weights of its own: the encoder is a frozen part.
    """

    makes = ("tokens",)

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        return Conditioning(tokens=self.states(batch, dropped).tokens)


class TextEncoderConditioner(_FrozenText):
    """`batch["caption"]` list[str] -> tokens [B, L, width], token_mask [B, L] and vector [B, embedding_dim].

    The encoder's tokens and its pooled state are normalized and projected by layers that are trained; the latter joins
    the time embedding, and is left out if `pooled` is False. The network attends to the tokens of the caption alone.
    The null is the empty caption, or learned: L tokens, all of which are attended to, and a vector.

    State-dict keys: norm.*, projection.*, pooled_norm.*, pooled_projection.*, and null_tokens [L, width] and
    null_vector [embedding_dim] if they are learned; without `pooled` none of the vector's. The encoder is a frozen
    part.
    """

    def __init__(
        self,
        encoder: TextEncoderBase,
        tokenizer: Tokenizer,
        *,
        width: int,
        embedding_dim: int,
        drop_rate: float,
        pooled: bool = True,
        null: NullCondition = "empty",
    ) -> None:
        super().__init__(encoder, tokenizer, drop_rate)
        sizes = encoder.described_architecture
        self.norm = LayerNorm(sizes.width)
        self.projection = nn.Linear(sizes.width, width)
        self.makes = ("vector", "tokens", "token_mask") if pooled else ("tokens", "token_mask")
        self.pooled_norm = LayerNorm(sizes.pooled_width) if pooled else None
        self.pooled_projection = nn.Linear(sizes.pooled_width, embedding_dim) if pooled else None
        self.null_tokens = self.null_vector = None
        if null == "learned":
            self.null_tokens = nn.Parameter(0.02 * torch.randn(tokenizer.context_length, width))
            self.null_vector = nn.Parameter(torch.zeros(embedding_dim)) if pooled else None

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        replaced = None if self.null_tokens is not None else dropped
        made = self._projected(self.states(batch, replaced))
        return made if self.null_tokens is None or dropped is None else self._with_null(made, dropped)

    def _projected(self, states: TextStates) -> Conditioning:
        tokens = self.projection(self.norm(states.tokens))
        vector = None
        if self.pooled_norm is not None and self.pooled_projection is not None:
            vector = self.pooled_projection(self.pooled_norm(states.pooled))
        return Conditioning(vector=vector, tokens=tokens, token_mask=states.mask)

    def _with_null(self, made: Conditioning, dropped: Tensor) -> Conditioning:
        tokens, vector, mask = made.tokens, made.vector, made.token_mask
        assert tokens is not None
        assert mask is not None
        assert self.null_tokens is not None
        chosen = dropped.to(self._placed.device)[:, None]
        if vector is not None and self.null_vector is not None:
            vector = torch.where(chosen, self.null_vector.to(vector.dtype), vector)
        return Conditioning(
            vector=vector,
            tokens=torch.where(chosen[..., None], self.null_tokens.to(tokens.dtype), tokens),
            token_mask=mask | chosen,
        )


def build(config: TextEncoderConditionerConfig, *, embedding_dim: int, image_size: int) -> Conditioner:
    """Builds the conditioner of a configuration; see `build_conditioners`."""
    assert config.tokenizer is not None, "it is found before anything is built"
    tokenizer = build_tokenizer(config.tokenizer)
    if config.width is None:
        return TextStatesConditioner(config.encoder, tokenizer, config.drop_rate)
    return TextEncoderConditioner(
        config.encoder,
        tokenizer,
        width=config.width,
        embedding_dim=embedding_dim,
        drop_rate=config.drop_rate,
        pooled=config.pooled,
        null=config.null_condition,
    )
