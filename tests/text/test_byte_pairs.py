"""Byte pairs against their definition: join every occurrence of the first pair among the merges, and again."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from difflab.text.byte_pairs import BytePairs


def defined(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """The tokens of an ASCII word, step by step."""
    tokens = list(word)
    for _ in word:
        pair = next((pair for pair in merges if pair in itertools.pairwise(tokens)), None)
        if pair is None:
            break
        joined: list[str] = []
        while tokens:
            size = 2 if tuple(tokens[:2]) == pair else 1
            joined.append("".join(tokens[:size]))
            del tokens[:size]
        tokens = joined
    return tokens


@st.composite
def vocabularies(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Merges in any order, also in one that no training gives: a pair may come before its own parts are joined."""
    tokens, merges = list("ab"), []
    for _ in range(draw(st.integers(0, 8))):
        pair = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        if pair not in merges:
            merges.append(pair)
            tokens.append("".join(pair))
    return draw(st.permutations(merges))


@given(vocabularies(), st.text("ab", max_size=14))
def test_ids_are_those_of_the_definition(merges: list[tuple[str, str]], word: str) -> None:
    tokens = list(dict.fromkeys([*"ab", *("".join(pair) for pair in merges)]))
    pairs = BytePairs({token: number for number, token in enumerate(tokens)}, merges, "")
    found = pairs.encode(word)
    assert [tokens[number] for number in found] == defined(word, merges)
    assert pairs.decode(found) == word
