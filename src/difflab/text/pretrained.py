"""Published tokenizers, read from their tokenizer.json: BERT's WordPiece, T5's unigrams, CLIP's byte pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tokenizers

from difflab.config.parts import FrozenConfig
from difflab.console import printable
from difflab.errors import UserError, first_line
from difflab.frozen_files import beside, find
from difflab.text.base import Tokenizer
from difflab.text.config import PretrainedTokenizerConfig, TooLong

TOKENIZER_FILE = "tokenizer.json"
_SPECIAL_TOKENS = ("tokenizer_config.json", "special_tokens_map.json")
"""The files of transformers that name the token of padding, beside tokenizer.json."""


class PretrainedTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library, with the start and end of texts that its file adds.

    content: of tokenizer.json. padding: the id after the end of a text, which the file need not know.
    Raises ValueError if the content is no tokenizer.
    """

    def __init__(self, content: bytes, padding: int, context_length: int, too_long: TooLong) -> None:
        super().__init__(context_length, too_long)
        self._model = read_model(content)
        self._padding = padding
        self._sha256 = hashlib.sha256(b"%d\n%b" % (padding, content)).hexdigest()
        special = self._model.encode("a").special_tokens_mask
        self._ends = len(special) - 1 - max((i for i, one in enumerate(special) if not one), default=-1)

    @property
    def vocabulary(self) -> int:
        return vocabulary_of(self._model)

    @property
    def padding(self) -> int:
        return self._padding

    @property
    def sha256(self) -> str:
        return self._sha256

    def encode(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"the text {printable(text[:60])!r} is not UTF-8: save it as UTF-8") from None
        return self._model.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        text = self._model.decode(list(ids), skip_special_tokens=True)
        # The decoders in the files of CLIP leave the ends of words in.
        end = getattr(self._model.model, "end_of_word_suffix", None)
        return text.replace(end, " ").strip() if end else text

    def truncated(self, ids: list[int]) -> list[int]:
        return [*ids[: self.context_length - self._ends], *ids[len(ids) - self._ends :]]


class TokenizerFacts(NamedTuple):
    """vocabulary: number of token ids. padding: the id after the end of a text."""

    vocabulary: int
    padding: int


def facts_of(file: FrozenConfig) -> TokenizerFacts:
    """What has to be known of a published tokenizer besides its file, from the files beside it.

    Raises UserError if it is not found, if texts are not padded at their end, or if nothing says with what.
    """
    path, _ = find(file)
    try:
        content = path.read_bytes()
        model, own = read_model(content), json.loads(content).get("padding")
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    token = padding_token_beside(file)
    padding = None if token is None else model.token_to_id(token)
    if padding is None and own is not None:
        padding = own["pad_id"]
    if padding is None:
        raise UserError(
            f"{path}: neither it nor {' or '.join(_SPECIAL_TOKENS)} beside it names the token of padding: give its id, "
            "as in tokenizer.padding=0"
        )
    return TokenizerFacts(vocabulary_of(model), padding)


def padding_token_beside(file: FrozenConfig) -> str | None:
    """The token of padding that the settings beside a tokenizer's file name; None if they name none.

    Raises UserError if texts are not padded at their end, or if what is named is no text.
    """
    settings: dict[str, Any] = {}
    for name in reversed(_SPECIAL_TOKENS):
        settings |= _json(beside(file, name))
    if settings.get("padding_side", "right") != "right":
        raise UserError(f"{file.place}: its texts are padded at their start, which no text encoder here takes")
    token = settings.get("pad_token")
    text = token.get("content") if isinstance(token, Mapping) else token
    if not isinstance(text, str | None):
        raise UserError(f"{file.place}: pad_token={token!r} in the settings beside it is no token")
    return text


def vocabulary_of(model: tokenizers.Tokenizer) -> int:
    """Returns one more than the highest token id."""
    return 1 + max(model.get_vocab(with_added_tokens=True).values(), default=-1)


def read_model(content: bytes) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json, without padding or truncation. Raises ValueError if the content is none."""
    try:
        model = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:
        raise ValueError(f"no tokenizer of the tokenizers library ({first_line(error)})") from error
    # Files have those of their last use.
    model.no_padding()
    model.no_truncation()
    return model


def _json(file: FrozenConfig) -> dict[str, Any]:
    """The content of a file of settings, empty if there is no such file."""
    try:
        path, _ = find(file)
    except UserError:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not an object")
    return content


def build(config: PretrainedTokenizerConfig) -> PretrainedTokenizer:
    """A published tokenizer. Raises UserError if its file is not found, is another one, or has other token ids."""
    path, _ = find(config.file)
    try:
        made = PretrainedTokenizer(path.read_bytes(), config.padding, config.context_length, config.too_long)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if made.vocabulary != config.vocabulary:
        raise UserError(
            f"{path} has {made.vocabulary} token ids, not tokenizer.vocabulary={config.vocabulary}: set it to the "
            "number of the file"
        )
    return made
