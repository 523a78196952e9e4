"""A conditioner whose configuration did not say what it makes, beside a network that does not read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pytest

from choices import add_choices
from difflab.commands.composing import compose_and_validate
from difflab.config.axes import CONDITIONERS
from difflab.config.fitting import Makes
from difflab.config.registry import Kind
from difflab.config.train import TrainConfig
from difflab.errors import UserError
from difflab.tasks.build import build_model
from words import WordsConfig


class SilentWordsConfig(WordsConfig):
    kind: Literal["silent_words"]  # pyrefly: ignore

    def makes(self, channels: int) -> Makes:
        return Makes()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    add_choices(monkeypatch, CONDITIONERS, Kind("silent_words", SilentWordsConfig, "words:build"))


def model(options: Mapping[str, str], *overrides: str) -> None:
    given = ",".join(f"{key}:{value}" for key, value in {"kind": "silent_words", **options}.items())
    asked = ["experiment=ddpm/shapes32", f"+conditioning.text={{{given}}}", *overrides]
    build_model(compose_and_validate("train", TrainConfig, asked)[0].model())


@pytest.mark.usefixtures("silent")
def test_what_is_built_is_asked() -> None:
    tokens = {"as_field": "tokens", "width": "8"}
    model({})
    model(tokens, "network.context_channels=8")
    with pytest.raises(UserError, match=r"^conditioning\.text makes tokens, but network\.context_channels=null"):
        model(tokens)
    with pytest.raises(UserError, match="needs tokens, which nothing in conditioning makes"):
        model({}, "network.context_channels=8")
