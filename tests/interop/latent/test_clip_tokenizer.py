"""CLIP's tokenizer as transformers builds it, from the files of folders and from CLIP's own vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from difflab.errors import UserError
from difflab.interop.latent.clip_tokenizer import TextTokenizer, clip_tokenizer, tokenizer_of_folder
from difflab.text.pretrained import PretrainedTokenizer

TEXTS = [
    "",
    "a photo of an astronaut riding a horse on mars",
    "  It's 2 o'clock -- we'll see: 12,345 cats!!!  ",
    "Crème brûlée, naïve façade; ¿qué? 東京 привет \U0001f600 e\u0301",
    "<|startoftext|>hello<|endoftext|> world",
    "line\nbreak\tand\u00a0space don't I'VE",
    "antidisestablishmentarianism supercalifragilistic",
]


def ids_of(tokenizer: TextTokenizer, texts: list[str]) -> list[list[int]]:
    return PretrainedTokenizer(tokenizer.content, tokenizer.padding_id, 77, "refuse")(texts).ids.tolist()


def files(folder: Path, tokenizer: TextTokenizer, names: tuple[str, ...]) -> Path:
    folder.mkdir()
    for name, content in tokenizer.files(77).items():
        if name in names:
            (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(("padding", "number"), [("<|endoftext|>", 49407), ("!", 0)])
def test_ids_are_those_of_transformers(tmp_path: Path, padding: str, number: int) -> None:
    from transformers import CLIPTokenizer

    tokenizer = clip_tokenizer(padding)
    assert tokenizer.vocabulary == 49408
    assert tokenizer.padding_id == number
    old = files(tmp_path / "old", tokenizer, ("vocab.json", "merges.txt", "tokenizer_config.json"))
    new = files(tmp_path / "new", tokenizer, ("tokenizer.json", "tokenizer_config.json"))
    expected = CLIPTokenizer.from_pretrained(old)(TEXTS, padding="max_length", max_length=77)["input_ids"]
    assert CLIPTokenizer.from_pretrained(new)(TEXTS, padding="max_length", max_length=77)["input_ids"] == expected
    assert tokenizer.pads_with_a_word is (padding == "!")
    if not tokenizer.pads_with_a_word:
        assert ids_of(tokenizer, TEXTS) == expected
        assert tokenizer_of_folder(new) == tokenizer
    for folder in (old, new):
        found = tokenizer_of_folder(folder)
        assert found.padding == padding
        assert not found.pads_with_a_word
        assert ids_of(found, TEXTS) == expected


def test_open_clip_takes_exclamation_marks_for_words() -> None:
    import open_clip

    assert ids_of(clip_tokenizer("!"), TEXTS[:3]) == open_clip.tokenize(TEXTS[:3]).tolist()


def test_without_settings_the_padding_is_that_of_the_library(tmp_path: Path) -> None:
    tokenizer = clip_tokenizer("!")
    assert tokenizer_of_folder(files(tmp_path / "a", tokenizer, ("tokenizer.json",))).padding == "<|endoftext|>"


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    tokenizer = clip_tokenizer("!")
    folder = files(tmp_path / "a", tokenizer, ("vocab.json",))
    with pytest.raises(UserError, match=r"a: no tokenizer in it \(tokenizer.json, or vocab.json and merges.txt\)"):
        tokenizer_of_folder(folder)
    (folder / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(UserError, match=r"merges.txt: 'a b c' is no pair of tokens"):
        tokenizer_of_folder(folder)
    (folder / "merges.txt").write_text("zzz zzz\n")
    with pytest.raises(UserError, match=r"merges.txt: no tokenizer of the tokenizers library"):
        tokenizer_of_folder(folder)
    (folder / "vocab.json").write_text(json.dumps({"a": 0}))
    with pytest.raises(UserError, match=r"vocab.json: not the vocabulary of a CLIP"):
        tokenizer_of_folder(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer.json: no tokenizer of the tokenizers library"):
        tokenizer_of_folder(folder)
    with pytest.raises(UserError, match="'no token', is not in the tokenizer's vocabulary"):
        TextTokenizer(tokenizer.content, "no token").padding_id  # noqa: B018
