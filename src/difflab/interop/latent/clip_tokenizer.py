"""CLIP's byte pairs as a tokenizer.json, from the files of older folders or from CLIP's own vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflab.config.parts import FrozenConfig
from difflab.errors import UserError
from difflab.interop.native import read_json
from difflab.text.byte_pairs import WORD_END, byte_characters
from difflab.text.clip import END, START
from difflab.text.pretrained import TOKENIZER_FILE, padding_token_beside, read_model, vocabulary_of
from difflab.text.vocabularies import clip_merges

_VOCABULARY, _MERGES = "vocab.json", "merges.txt"
_SPECIAL = "|".join(map(re.escape, (START, END)))
_WORDS = _SPECIAL + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""A word, in the notation of the tokenizers library (openai/CLIP, simple_tokenizer.py)."""
SETTINGS = "tokenizer_config.json"


@dataclass(frozen=True)
class TextTokenizer:
    """The content of a tokenizer.json, and the token of padding."""

    content: bytes
    padding: str

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return vocabulary_of(read_model(self.content))

    @property
    def pads_with_a_word(self) -> bool:
        """Whether the token of padding is a word in texts, which transformers always takes for padding."""
        return all(one["content"] != self.padding for one in json.loads(self.content)["added_tokens"])

    @property
    def padding_id(self) -> int:
        """The id after the end of a text. Raises UserError if the token is none of the vocabulary's."""
        found = read_model(self.content).token_to_id(self.padding)
        if found is None:
            raise UserError(f"the token of padding, {self.padding!r}, is not in the tokenizer's vocabulary")
        return found

    def files(self, context_length: int) -> dict[str, bytes]:
        """The files that transformers' `CLIPTokenizer` reads, older versions too."""
        model = json.loads(self.content)["model"]
        settings = {
            "tokenizer_class": "CLIPTokenizer",
            "bos_token": START,
            "eos_token": END,
            "unk_token": END,
            "pad_token": self.padding,
            "model_max_length": context_length,
        }
        merges = "\n".join(one if isinstance(one, str) else " ".join(one) for one in model["merges"])
        return {
            TOKENIZER_FILE: self.content,
            SETTINGS: _json(settings),
            _VOCABULARY: _json(model["vocab"]),
            _MERGES: f"#version: 0.2\n{merges}\n".encode(),
        }


def tokenizer_of_folder(folder: Path) -> TextTokenizer:
    """The tokenizer of a folder of transformers: its tokenizer.json, or else CLIP's byte pairs of its vocab.json and
    merges.txt.

    Raises UserError if there is neither, if they cannot be read, or if the token of padding is none of theirs.
    """
    file = folder / TOKENIZER_FILE
    if file.is_file():
        content = file.read_bytes()
        _require_readable(file, content)
    else:
        file = folder / _VOCABULARY
        if not file.is_file() or not (folder / _MERGES).is_file():
            raise UserError(
                f"{folder}: no tokenizer in it ({TOKENIZER_FILE}, or {_VOCABULARY} and {_MERGES}): fetch the folder "
                "again with that of its tokenizer"
            )
        content = _of_files(file, folder / _MERGES)
    padding = padding_token_beside(FrozenConfig(path=str(file))) or END
    if read_model(content).token_to_id(padding) is None:
        raise UserError(f"{file}: has no {padding!r}, with which {SETTINGS} beside it says that texts are padded")
    return TextTokenizer(_with_special(content, padding), padding)


def _with_special(content: bytes, token: str) -> bytes:
    """The tokenizer with a token that is one wherever it is in a text: transformers makes such of that of padding.

    With Stable Diffusion 2's, `!`, exclamation marks are padding in that library, but words in open_clip.
    """
    number, described = read_model(content).token_to_id(token), json.loads(content)
    added = described.get("added_tokens") or []
    if number is None or any(one["content"] == token for one in added):
        return content
    added.append(_special(number, token, normalized=False))
    return _json({**described, "added_tokens": sorted(added, key=lambda one: one["id"])})


def clip_tokenizer(padding: str) -> TextTokenizer:
    """CLIP's own tokenizer of 49,408 ids. Raises UserError if its vocabulary is in no installed package."""
    merges = clip_merges()
    characters = list(byte_characters().values())
    tokens = [*characters, *(c + WORD_END for c in characters), *map("".join, merges), START, END]
    return TextTokenizer(_content({token: number for number, token in enumerate(tokens)}, merges), padding)


def _of_files(vocabulary: Path, merges: Path) -> bytes:
    ids = read_json(vocabulary)
    if not all(isinstance(number, int) for number in ids.values()) or START not in ids or END not in ids:
        raise UserError(f"{vocabulary}: not the vocabulary of a CLIP (token ids, among them {START} and {END})")
    try:
        lines = merges.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise UserError(f"{merges}: not UTF-8 ({error})") from error
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    odd = next((pair for pair in pairs if len(pair) != 2), None)
    if odd is not None:
        raise UserError(f"{merges}: {' '.join(odd)!r} is no pair of tokens")
    content = _content(ids, [(first, second) for first, second in pairs])
    _require_readable(merges, content)
    return content


def _require_readable(path: Path, content: bytes) -> None:
    try:
        read_model(content)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _content(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> bytes:
    """CLIP's tokenizer for the tokenizers library: NFC, lower case, words, bytes, byte pairs, start and end."""
    special = [_special(vocabulary[token], token, normalized) for token, normalized in ((START, True), (END, False))]
    bytes_of_words = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(special, key=lambda token: token["id"]),
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Removed", "invert": True},
                bytes_of_words,
            ],
        },
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [END, vocabulary[END]],
            "cls": [START, vocabulary[START]],
            "trim_offsets": False,
            "add_prefix_space": False,
        },
        "decoder": bytes_of_words,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": END,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": WORD_END,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])),
            "merges": [list(pair) for pair in merges],
        },
    }
    return _json(content)


def _special(number: int, token: str, normalized: bool) -> dict[str, Any]:
    nowhere = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    return {"id": number, "content": token, **nowhere, "normalized": normalized, "special": True}


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()
