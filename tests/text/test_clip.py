"""CLIP's tokenizer against the ids of OpenAI's code, and beside open_clip's."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch

from difflab.errors import UserError
from difflab.text import cleaning
from difflab.text.clip import CLIPTokenizer
from difflab.text.vocabularies import clip_merges
from golden_fixtures import ROOT
from text.odd_texts import odd_texts

FACTS = json.loads((ROOT / "multimodal" / "clip_bpe.json").read_text())["facts"]


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(clip_merges(), 77, "truncate")


@pytest.mark.parametrize("row", FACTS["rows"], ids=lambda row: repr(row["text"][:20]))
def test_ids_are_openai_s(row: dict[str, object], tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.encode(str(row["text"])) == row["ids"]


def test_the_vocabulary_is_openai_s(tokenizer: CLIPTokenizer) -> None:
    merges = list(clip_merges())
    assert (len(merges), tokenizer.vocabulary) == (FACTS["merges"], FACTS["vocab_size"])
    assert [" ".join(pair) for pair in merges[:5]] == FACTS["first_merges"]
    assert [" ".join(pair) for pair in merges[-3:]] == FACTS["last_merges"]


def test_ids_of_a_thousand_texts_are_open_clip_s(tokenizer: CLIPTokenizer) -> None:
    texts = [text for text in odd_texts() if "<|" not in text and "|>" not in text]
    theirs = open_clip.tokenizer.SimpleTokenizer()
    ours = tokenizer(texts).ids
    for text, row, expected in zip(texts, ours, theirs(texts), strict=True):
        assert torch.equal(row, expected), repr(text)


def test_the_short_way_of_plain_ascii_gives_what_the_long_one_does(
    tokenizer: CLIPTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text for text in odd_texts() if cleaning.is_plain(text)]
    assert len(texts) > 50
    short = [tokenizer.encode(text) for text in texts]
    monkeypatch.setattr(cleaning, "is_plain", lambda text: False)
    long = CLIPTokenizer(clip_merges(), 77, "truncate")
    assert [long.encode(text) for text in texts] == short


def test_every_printable_character_goes_the_same_way(tokenizer: CLIPTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    characters = [f"a{chr(code)}b {chr(code)} {chr(code)}{chr(code)}" for code in range(128)]
    short = [cleaning.clean(text) for text in characters]
    monkeypatch.setattr(cleaning, "is_plain", lambda text: False)
    assert [cleaning.clean(text) for text in characters] == short


def test_texts_are_padded_with_zero_and_masked(tokenizer: CLIPTokenizer) -> None:
    tokens = tokenizer(["a dog", ""])
    assert tokens.ids.shape == (2, 77)
    assert tokens.ids.dtype == torch.int64
    assert tokens.mask.sum(dim=1).tolist() == [4, 2]
    assert tokens.ids[0, :5].tolist() == [49406, 320, 1929, 49407, 0]
    assert not tokens.ids[~tokens.mask].any()


def test_a_long_text_ends_with_the_end() -> None:
    truncating = CLIPTokenizer(clip_merges(), 6, "truncate")
    assert truncating(["one two three four five six"]).ids[0, [0, -1]].tolist() == [49406, 49407]


def test_a_long_text_is_refused_in_a_line() -> None:
    refusing = CLIPTokenizer(clip_merges(), 6, "refuse")
    with pytest.raises(UserError, match="'one two three four five six' has 8 tokens, more than context_length=6"):
        refusing(["one two three four five six"])


@pytest.mark.parametrize("text", ["a photo of a cat", "café 😀", "it's 3 o'clock !"])
def test_decoding_gives_the_cleaned_words(text: str, tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer([text]).ids[0].tolist()
    assert tokenizer.encode(tokenizer.decode(ids)) == tokenizer.encode(text)
