"""Vocabularies learned from captions."""

from __future__ import annotations

import random

import pytest

from difflab.errors import UserError
from difflab.text.build import build_tokenizer
from difflab.text.config import BytePairsTokenizerConfig
from difflab.text.training import learn_merges

CAPTIONS = ["a small red circle above a blue square", "a red ring", "a blue ring left of a red circle"] * 3


def learned(captions: list[str], vocabulary: int = 560, **options: object) -> BytePairsTokenizerConfig:
    config = BytePairsTokenizerConfig.model_validate({"kind": "byte_pairs", "vocabulary": vocabulary, **options})
    assert config.learns
    return config.completed(lambda: captions)


def test_frequent_words_become_one_id() -> None:
    tokenizer = build_tokenizer(learned(CAPTIONS))
    assert len(tokenizer.encode("a red circle")) == 2 + 3
    assert tokenizer.decode(tokenizer.encode("a red circle")) == "a red circle"


def test_any_text_has_ids_below_the_vocabulary() -> None:
    config = learned(CAPTIONS, context_length=40)
    tokenizer = build_tokenizer(config)
    for text in ("", "日本 café 😀", "zebra & <b>"):
        ids = tokenizer.encode(text)
        assert max(ids) < tokenizer.vocabulary <= config.vocabulary
        assert tokenizer.encode(tokenizer.decode(ids)) == ids


def test_the_end_has_the_highest_id() -> None:
    tokenizer = build_tokenizer(learned(CAPTIONS))
    ids = tokenizer(["a red ring"]).ids[0]
    assert ids.argmax() == len(tokenizer.encode("a red ring")) - 1


def test_the_same_captions_in_any_order_give_the_same_merges() -> None:
    shuffled = CAPTIONS.copy()
    random.Random(0).shuffle(shuffled)
    assert learn_merges(shuffled, 560) == learn_merges(CAPTIONS, 560)


def test_pairs_that_are_equally_frequent_are_joined_in_the_order_of_their_bytes() -> None:
    # A trainer that leaves this to a table in random order gives another vocabulary with every start of a process.
    words = [first + last for first in "abcdefgh" for last in "ijklmnop"]
    assert learn_merges(2 * words, 514 + len(words)) == [(word[0], f"{word[1]}</w>") for word in words]


def test_a_vocabulary_is_never_larger_than_it_may_be() -> None:
    assert len(learn_merges(CAPTIONS, 520)) == 520 - 514


def test_captions_without_a_pair_leave_the_bytes() -> None:
    config = learned(["abc"])
    assert config.merges == ""
    assert not config.learns
    assert len(build_tokenizer(config).encode("abc")) == 5


def test_no_captions_are_refused() -> None:
    with pytest.raises(UserError, match="there are no captions to learn a vocabulary from"):
        learn_merges(["", "  "], 560)


@pytest.mark.parametrize(
    ("merges", "line"), [("a b c", "two tokens per line"), ("a b\nc d\n" * 40, "more than vocabulary=560")]
)
def test_merges_that_cannot_be_are_refused(merges: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        BytePairsTokenizerConfig.model_validate({"kind": "byte_pairs", "vocabulary": 560, "merges": merges})
