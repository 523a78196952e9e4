"""The texts that are found in a split before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difflab.config.data import DataConfig
from difflab.data.contents import phrases_of
from difflab.data.writing import write_shards
from difflab.errors import UserError


class Layouts:
    """An image for each list of phrases, which all have the same box."""

    class_names = None

    def __init__(self, *phrases: list[str]) -> None:
        self.phrases = phrases

    def __len__(self) -> int:
        return len(self.phrases)

    def sample(self, index: int) -> dict[str, Any]:
        phrases = self.phrases[index]
        content = {"boxes": [[0.0, 0.0, 0.5, 0.5]] * len(phrases), "phrases": phrases}
        return {"image": np.zeros((8, 8, 3), dtype=np.uint8), "json": content}


def data_of(folder: Path, *phrases: list[str], val: list[str] | None = None) -> DataConfig:
    write_shards(Layouts(*phrases), folder)
    if val is not None:
        write_shards(Layouts(val), folder, split="val")
    return DataConfig(path=str(folder), image_size=8, batch_size=2)


def test_the_phrases_of_all_boxes_are_found(tmp_path: Path) -> None:
    data = data_of(tmp_path / "data", ["a cat", "a dog"], [], ["a cat"])
    assert list(phrases_of(data)) == ["a cat", "a dog", "a cat"]


def test_the_phrases_of_the_validation_split_are_found_too(tmp_path: Path) -> None:
    assert list(phrases_of(data_of(tmp_path / "data", ["a cat"], val=["a cow"]))) == ["a cat", "a cow"]
    assert list(phrases_of(data_of(tmp_path / "other", ["a cat"], val=[]))) == ["a cat"]


def test_data_without_a_box_is_refused(tmp_path: Path) -> None:
    data = data_of(tmp_path / "data", [], [])
    with pytest.raises(UserError, match=r"has no phrases of boxes in split 'train': no image has a box"):
        list(phrases_of(data))
