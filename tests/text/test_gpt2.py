"""GPT-2's tokenizer as GLIDE uses it, against the ids of its code."""

from __future__ import annotations

import json

import pytest

from difflab.text.gpt2 import GPT2Tokenizer
from difflab.text.vocabularies import gpt2_vocabulary
from golden_fixtures import ROOT

FACTS = json.loads((ROOT / "multimodal" / "glide_bpe.json").read_text())["facts"]


@pytest.fixture(scope="module")
def tokenizer() -> GPT2Tokenizer:
    return GPT2Tokenizer(*gpt2_vocabulary(), FACTS["text_ctx"], "truncate")


@pytest.mark.parametrize("row", FACTS["rows"], ids=lambda row: repr(row["text"][:20]))
def test_ids_padding_and_mask_are_glide_s(row: dict[str, object], tokenizer: GPT2Tokenizer) -> None:
    assert tokenizer.encode(str(row["text"])) == row["ids"]
    tokens = tokenizer([str(row["text"])])
    assert tokens.mask.sum().item() == row["kept"]
    assert set(tokens.ids[~tokens.mask].tolist()) <= {row["pad_id"]}


def test_the_vocabulary_is_gpt_2_s(tokenizer: GPT2Tokenizer) -> None:
    assert tokenizer.vocabulary == FACTS["n_vocab"]
    assert tokenizer.padding == FACTS["end_token"]
    assert len(gpt2_vocabulary()[1]) == FACTS["merges"]


def test_ids_come_back_as_the_text(tokenizer: GPT2Tokenizer) -> None:
    text = "a corgi, painted in 1234 — café 😀"
    assert tokenizer.decode(tokenizer([text]).ids[0].tolist()) == text
