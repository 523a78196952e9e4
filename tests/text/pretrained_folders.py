"""Folders of transformers with tokenizers that are drawn, or learned from a few texts, in the manner of each family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers
from transformers import BertTokenizerFast, CLIPTokenizerFast, T5TokenizerFast

from difflab.text.byte_pairs import byte_characters

TEXTS = ["a small red circle above a large blue square", "two cats, 3.14 dogs & a café", "it's we've <b>bold</b>"]


def bert(folder: Path) -> Path:
    """Word pieces of lower-case words, with the special tokens of BERT."""
    model = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    model.normalizer = normalizers.BertNormalizer(lowercase=True)
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    model.train_from_iterator(TEXTS * 3, tokenizers.trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
    BertTokenizerFast(vocab=model.get_vocab()).save_pretrained(folder)
    return folder


def t5(folder: Path) -> Path:
    """Unigrams with the special tokens and a few of the sentinels of T5."""
    model = tokenizers.Tokenizer(models.Unigram())
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = tokenizers.trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>")
    model.train_from_iterator(TEXTS * 3, trainer)
    pieces = [tuple(piece) for piece in json.loads(model.to_str())["model"]["vocab"]]
    T5TokenizerFast(vocab=pieces, extra_ids=5).save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    """Byte pairs with the start and end of CLIP; padded with the end."""
    characters = list(byte_characters().values())
    merges = [("r", "e"), ("re", "d</w>"), ("a", "b"), ("c", "i"), ("ci", "r")]
    tokens = [*characters, *(f"{c}</w>" for c in characters), *map("".join, merges)]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    CLIPTokenizerFast(vocab=vocabulary, merges=merges).save_pretrained(folder)
    return folder


FOLDERS: dict[str, Callable[[Path], Path]] = {"bert": bert, "t5": t5, "clip": clip}
