"""Builds tokenizers from their configurations."""

from __future__ import annotations

from difflab.config.axes import TOKENIZERS
from difflab.text.base import Tokenizer
from difflab.text.clip import CLIPTokenizer
from difflab.text.config import (
    BytePairsTokenizerConfig,
    CLIPTokenizerConfig,
    GPT2TokenizerConfig,
    TokenizerBase,
)
from difflab.text.gpt2 import GPT2Tokenizer
from difflab.text.vocabularies import clip_merges, gpt2_vocabulary


def build_tokenizer(config: TokenizerBase) -> Tokenizer:
    """Builds the tokenizer of a configuration. Raises UserError if its vocabulary is not found."""
    return TOKENIZERS.builder(config)(config)


def clip(config: CLIPTokenizerConfig) -> CLIPTokenizer:
    """CLIP's tokenizer."""
    return CLIPTokenizer(clip_merges(config.path), config.context_length, config.too_long)


def gpt2(config: GPT2TokenizerConfig) -> GPT2Tokenizer:
    """GLIDE's tokenizer."""
    return GPT2Tokenizer(*gpt2_vocabulary(config.path), config.context_length, config.too_long)


def byte_pairs(config: BytePairsTokenizerConfig) -> CLIPTokenizer:
    """A tokenizer with learned merges."""
    assert config.merges is not None, "they are learned before anything is built"
    merges = [(first, second) for first, second in (line.split(" ") for line in config.merges.splitlines())]
    return CLIPTokenizer(merges, config.context_length, config.too_long)
