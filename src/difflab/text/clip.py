"""CLIP's tokenizer (Radford et al. 2021; openai/CLIP, simple_tokenizer.py)."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Sequence

from difflab.text.base import Tokenizer
from difflab.text.byte_pairs import WORD_END, BytePairs, byte_characters
from difflab.text.cleaning import clean
from difflab.text.config import TooLong

START, END = "<|startoftext|>", "<|endoftext|>"
_SPECIAL = f"{re.escape(START)}|{re.escape(END)}|"
_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d|"
_ASCII_WORDS = re.compile(rf"{_SPECIAL}{_CONTRACTIONS}[a-z]+|[0-9]|[^\sa-z0-9]+")
_CACHED = 1 << 17


class CLIPTokenizer(Tokenizer):
    """Byte pairs of cleaned words, between the two ids with the highest numbers; padded with 0.

    merges: pairs of tokens, in the order in which they are joined; the vocabulary is the 256 bytes, the same at the end
            of a word, one token per merge, start and end.
    """

    def __init__(self, merges: Sequence[tuple[str, str]], context_length: int, too_long: TooLong) -> None:
        super().__init__(context_length, too_long)
        characters = list(byte_characters().values())
        tokens = [*characters, *(c + WORD_END for c in characters), *map("".join, merges), START, END]
        self._pairs = BytePairs({token: number for number, token in enumerate(tokens)}, merges, WORD_END)
        self._start, self._end = len(tokens) - 2, len(tokens) - 1
        self._special = {START: (self._start,), END: (self._end,)}
        self._sha256 = hashlib.sha256("\n".join(map(" ".join, merges)).encode()).hexdigest()
        self._known: dict[str, tuple[int, ...]] = {}

    @property
    def vocabulary(self) -> int:
        return self._end + 1

    @property
    def padding(self) -> int:
        return 0

    @property
    def sha256(self) -> str:
        return self._sha256

    def encode(self, text: str) -> list[int]:
        ids = [self._start]
        known = self._known
        # No word contains a space, so what stands between spaces can be looked up whole.
        for piece in clean(text).split(" "):
            found = known.get(piece)
            if found is None:
                if len(known) >= _CACHED:
                    known.clear()
                found = known[piece] = self._of_piece(piece)
            ids += found
        ids.append(self._end)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        inner = [number for number in ids if number not in (self._start, self._end)]
        while inner and inner[-1] == self.padding and self._end in ids:
            inner.pop()
        return self._pairs.decode(inner).strip()

    def truncated(self, ids: list[int]) -> list[int]:
        return [*ids[: self.context_length - 1], self._end]

    def _of_piece(self, piece: str) -> tuple[int, ...]:
        return tuple(n for word in _split(piece) for n in self._special.get(word) or self._pairs.encode(word))


def words_of(text: str) -> list[str]:
    """The words of a text, cleaned, in order; punctuation and every digit are words of their own."""
    return _split(clean(text))


def _split(text: str) -> list[str]:
    return _ASCII_WORDS.findall(text) if text.isascii() else _words()(text)


@functools.cache
def _words() -> Callable[[str], list[str]]:
    import regex

    pattern = rf"{_SPECIAL}{_CONTRACTIONS}[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+"
    return regex.compile(pattern, regex.IGNORECASE).findall
