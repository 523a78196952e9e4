"""Files of the hub: from its local cache, or one line. Nothing is downloaded here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from difflab.config.parts import FrozenConfig
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.files import sha256_of
from difflab.frozen_files import beside, file_in, find, recorded
from difflab.hub import hub_file

Answer = Callable[[Exception], None]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one version of the model someone/tiny in an own cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("DIFFLAB_WEIGHTS", raising=False)
    model = tmp_path / "models--someone--tiny"
    version = model / "snapshots" / ("ab" * 20)
    version.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("ab" * 20)
    return version


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """answer(error): what a download raises from now on."""

    def say(error: Exception) -> None:
        def download(*_: Any, **__: Any) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

    say(AssertionError("nothing is to be downloaded"))
    return say


def test_a_file_in_the_cache_is_taken_from_there(cache: Path, answer: Answer) -> None:
    (cache / "model.bin").write_bytes(b"weights")
    (cache / "config.json").write_bytes(b"{}")
    part = FrozenConfig(hub="someone/tiny/model.bin")
    assert find(part) == (cache / "model.bin", sha256_of(cache / "model.bin"))
    assert recorded(part) == FrozenConfig(hub=part.hub, sha256=sha256_of(cache / "model.bin"))
    assert beside(part, "config.json") == FrozenConfig(hub="someone/tiny/config.json")
    assert file_in(FrozenConfig(hub="someone/tiny"), ["model.bin"]) == part


def test_a_model_without_the_first_file_may_have_the_second(cache: Path, answer: Answer) -> None:
    (cache / "model.bin").write_bytes(b"weights")
    answer(EntryNotFoundError("404"))
    assert file_in(FrozenConfig(hub="someone/tiny"), ["model.safetensors", "model.bin"]).hub == "someone/tiny/model.bin"
    assert hub_file("someone/tiny/other.bin") is None
    with pytest.raises(UserError, match=r"hub=someone/tiny has no other.bin or more.bin"):
        file_in(FrozenConfig(hub="someone/tiny"), ["other.bin", "more.bin"])
    with pytest.raises(UserError, match=r"hub=someone/tiny/other.bin: its model has no such file"):
        find(FrozenConfig(hub="someone/tiny/other.bin"))


def test_without_a_network_it_is_one_line(cache: Path, answer: Answer) -> None:
    answer(LocalEntryNotFoundError("a\nlong\nstory"))
    with pytest.raises(UserError) as refusal:
        find(FrozenConfig(hub="someone/tiny/model.bin"))
    assert str(refusal.value) == (
        "hub=someone/tiny/model.bin is not in the local cache and cannot be downloaded from here: run `hf download "
        "someone/tiny` where there is a network and set HF_HOME to its cache, or give path= or package= instead"
    )
    answer(httpx.ReadTimeout("the read\ntimed out"))
    with pytest.raises(UserError, match=r"^hub=someone/tiny/model.bin cannot be had: the read$"):
        find(FrozenConfig(hub="someone/tiny/model.bin"))


def test_attempts_that_fail_are_not_logged(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("huggingface_hub.utils._http")
    written: list[str] = []

    def download(*_: Any, **__: Any) -> str:
        written.extend(name for name in ("WARNING", "ERROR") if logger.isEnabledFor(getattr(logging, name)))
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    before = logger.getEffectiveLevel()
    with pytest.raises(UserError, match="cannot be downloaded from here"):
        find(FrozenConfig(hub="someone/tiny/model.bin"))
    assert written == ["ERROR"]
    assert logger.getEffectiveLevel() == before


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"hub": "t5-small"}, "hub: 't5-small' is not of the form owner/model"),
        ({"package": "t5"}, "package: 't5' is not of the form package_name/folder"),
    ],
)
def test_places_of_another_form_are_told_the_form(given: dict[str, str], line: str) -> None:
    with pytest.raises(UserError) as refusal:
        validate(FrozenConfig, given)
    assert str(refusal.value) == line
