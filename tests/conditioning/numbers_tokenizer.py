"""A tokenizer whose texts are the ids themselves."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.text.base import Tokenizer


class Numbers(Tokenizer):
    """Texts of numbers, each of which is an id; the last id is the padding."""

    def __init__(self, context_length: int, vocabulary: int) -> None:
        super().__init__(context_length, "refuse")
        self._vocabulary = vocabulary

    @property
    def vocabulary(self) -> int:
        return self._vocabulary

    @property
    def padding(self) -> int:
        return self._vocabulary - 1

    @property
    def sha256(self) -> str:
        return f"{self._vocabulary:064d}"

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def truncated(self, ids: list[int]) -> list[int]:
        return ids[: self.context_length]
