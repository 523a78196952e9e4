"""Byte-pair encoding of words (Sennrich et al. 2016), on bytes as in GPT-2 (Radford et al. 2019)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence

from difflab.errors import UserError

_CACHED = 1 << 17
"""Words whose ids are kept: some megabytes."""
WORD_END = "</w>"
"""Follows the last character of a word in CLIP's vocabulary; GPT-2's has the space before a word instead."""


@functools.cache
def byte_characters() -> dict[int, str]:
    """A printable character for each byte: itself if it has one, otherwise one from 256 on, in order (GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {**{b: chr(b) for b in printable}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


class BytePairs:
    """Token ids of words.

    ids:    of every token. merges: pairs of tokens, those that are joined first come first.
    ending: `WORD_END` or "".
    """

    def __init__(self, ids: dict[str, int], merges: Sequence[tuple[str, str]], ending: str) -> None:
        self.ids, self.ending = ids, ending
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._tokens = {number: token for token, number in ids.items()}
        self._characters = byte_characters()
        self._bytes = {character: byte for byte, character in self._characters.items()}
        self._known: dict[str, tuple[int, ...]] = {}

    def encode(self, word: str) -> tuple[int, ...]:
        """The ids of a word."""
        found = self._known.get(word)
        if found is None:
            if len(self._known) >= _CACHED:
                self._known.clear()
            found = self._known[word] = tuple(self.ids[token] for token in self._joined(word))
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become the replacement character. Unknown ids are left out."""
        text = "".join(self._tokens.get(number, "") for number in ids)
        parts = text.split(self.ending) if self.ending else [text]
        return " ".join(
            bytes(self._bytes[c] for c in part if c in self._bytes).decode("utf-8", "replace") for part in parts
        )

    def _joined(self, word: str) -> list[str]:
        """The tokens of a word: all occurrences of the pair that comes first among the merges are joined, and again."""
        tokens = [self._characters[byte] for byte in word.encode("utf-8", "surrogatepass")]
        if tokens:
            tokens[-1] += self.ending
        rank_of, none = self._ranks.get, len(self._ranks)
        ranks = [rank_of(pair, none) for pair in itertools.pairwise(tokens)]
        while ranks and (first := min(ranks)) < none:
            at = ranks.index(first)
            if ranks.count(first) > 1:
                tokens = _merged(tokens, (tokens[at], tokens[at + 1]))
                ranks = [rank_of(pair, none) for pair in itertools.pairwise(tokens)]
                continue
            # Only the two pairs beside it are new.
            tokens[at : at + 2] = [tokens[at] + tokens[at + 1]]
            del ranks[at]
            if at < len(ranks):
                ranks[at] = rank_of((tokens[at], tokens[at + 1]), none)
            if at > 0:
                ranks[at - 1] = rank_of((tokens[at - 1], tokens[at]), none)
        return tokens


def _merged(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    merged, i = [], 0
    while i < len(tokens):
        if i + 1 < len(tokens) and (tokens[i], tokens[i + 1]) == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged


def read_merges(text: str, start: int, stop: int | None, source: str) -> list[tuple[str, str]]:
    """Lines `start` to `stop` of a file of merges, two tokens each. Raises UserError for other lines."""
    pairs = [tuple(line.split()) for line in text.split("\n")[start:stop]]
    wrong = next((number for number, pair in enumerate(pairs) if len(pair) != 2), None)
    if wrong is not None:
        raise UserError(f"{source}, line {start + wrong + 1}: expected two tokens; this is no file of merges")
    return [(first, second) for first, second in pairs]
