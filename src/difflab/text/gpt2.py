"""GPT-2's tokenizer as GLIDE uses it (Nichol et al. 2021; openai/glide-text2im, tokenizer/bpe.py)."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence

from difflab.text.base import Tokenizer
from difflab.text.byte_pairs import BytePairs
from difflab.text.config import TooLong


class GPT2Tokenizer(Tokenizer):
    """Byte pairs of lower-case words with the space before them, without a start or an end; padded with the last id."""

    def __init__(
        self, ids: dict[str, int], merges: Sequence[tuple[str, str]], context_length: int, too_long: TooLong
    ) -> None:
        super().__init__(context_length, too_long)
        self._pairs = BytePairs(ids, merges, "")
        self._last = max(ids.values())
        content = json.dumps([sorted(ids.items()), list(merges)])
        self._sha256 = hashlib.sha256(content.encode()).hexdigest()

    @property
    def vocabulary(self) -> int:
        return self._last + 1

    @property
    def padding(self) -> int:
        return self._last

    @property
    def sha256(self) -> str:
        return self._sha256

    def encode(self, text: str) -> list[int]:
        return [number for word in _words()(text.lower()) for number in self._pairs.encode(word)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._pairs.decode(number for number in ids if number != self._last)

    def truncated(self, ids: list[int]) -> list[int]:
        return ids[: self.context_length]


@functools.cache
def _words() -> Callable[[str], list[str]]:
    import regex

    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    return regex.compile(pattern).findall
