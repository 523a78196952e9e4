"""What every tokenizer does, and what it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from difflab.console import printable
from difflab.errors import UserError
from difflab.text.config import TooLong

_SHOWN = 60


class TooLongText(UserError):  # noqa: N818 (it is what the text is, not a fault of the program)
    """A text has more tokens than its tokenizer takes; `why` is the reason without the remedy."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}: shorten it, or set too_long=truncate, in training an option of the tokenizer")
        self.why = why


@dataclass(frozen=True)
class Tokens:
    """ids: int64 [B, context_length]. mask: bool [B, context_length], True for the tokens of the text, with its start
    and end."""

    ids: Tensor
    mask: Tensor


class Tokenizer(ABC):
    """Texts to token ids, and back.

    context_length: tokens per text.
    too_long:       texts with more tokens are refused or truncated.
    """

    def __init__(self, context_length: int, too_long: TooLong) -> None:
        self.context_length, self.too_long = context_length, too_long
        self.trained_too_long = too_long

    def take_too_long(self, too_long: TooLong | None) -> None:
        """Whether longer texts are refused or truncated from now on; None as it was built."""
        self.too_long = too_long or self.trained_too_long

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Number of token ids."""

    @property
    @abstractmethod
    def padding(self) -> int:
        """The id after the end of a text."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text with its start and end, as many as there are."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; starts, ends and padding are left out."""

    @abstractmethod
    def truncated(self, ids: list[int]) -> list[int]:
        """The first `context_length` of the ids, as a complete text."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """A hash of everything that affects the ids: weights belong to the tokenizer that they were trained with."""

    @property
    def field(self) -> str:
        """The field of a batch with its ids; `<field>_mask` has their mask. Tokenizers that agree share it."""
        return f"caption_ids_{self.sha256[:8]}_{self.context_length}"

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """The padded ids of texts. Raises TooLongText for a text that is too long, if those are refused."""
        length = self.context_length
        ids = np.full((len(texts), length), self.padding, dtype=np.int64)
        lengths = np.zeros((len(texts), 1), dtype=np.int64)
        for row, text in enumerate(texts):
            found = self.encode(text)
            if len(found) > length:
                found = self._shortened(text, found)
            ids[row, : len(found)] = found
            lengths[row] = len(found)
        return Tokens(torch.from_numpy(ids), torch.from_numpy(np.arange(length) < lengths))

    def _shortened(self, text: str, ids: list[int]) -> list[int]:
        if self.too_long == "truncate":
            return self.truncated(ids)
        shown = printable(text[:_SHOWN] + ("..." if len(text) > _SHOWN else ""))
        raise TooLongText(f"the text {shown!r} has {len(ids)} tokens, more than context_length={self.context_length}")
