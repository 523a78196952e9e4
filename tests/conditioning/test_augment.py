from __future__ import annotations

import pytest
import torch

from difflab.conditioning.augment import AugmentConditioner
from difflab.conditioning.augmentation import Augmentation
from difflab.conditioning.build import build_conditioners
from difflab.conditioning.config import AugmentConditionerConfig, ClassConditionerConfig

CONFIG = AugmentConditionerConfig(kind="augment", probability=0.12)


def test_a_label_becomes_a_vector_by_a_linear_map_without_bias() -> None:
    conditioner = AugmentConditioner(Augmentation(0.12), 6)
    assert [name for name, _ in conditioner.named_parameters()] == ["map.weight"]
    label = torch.randn(3, 9)
    assert torch.equal(conditioner({"augment_label": label}).vector, torch.zeros(3, 6)), "it starts out as nothing"
    conditioner.map.weight.data.normal_()
    told = conditioner({"augment_label": label})
    assert told.fields().keys() == {"vector"}
    torch.testing.assert_close(told.vector, label @ conditioner.map.weight.T)
    assert torch.equal(conditioner({"augment_label": torch.zeros(3, 9)}).vector, torch.zeros(3, 6))


def test_without_labels_nothing_is_told() -> None:
    assert AugmentConditioner(Augmentation(0.12), 6)({}).fields() == {}


def test_it_stands_beside_a_class() -> None:
    classes = ClassConditionerConfig(kind="class", classes=5, drop_rate=0.1)
    conditioners = build_conditioners({"class": classes, "augment": CONFIG}, embedding_dim=6, image_size=8)
    conditioners["augment"].map.weight.data.normal_()
    label = {"index": torch.arange(2), "label": torch.tensor([1, 2])}
    plain = conditioners["class"](label).vector
    told = conditioners.conditioning({**label, "augment_label": torch.ones(2, 9)})
    torch.testing.assert_close(told.vector, plain + conditioners["augment"].map.weight.sum(dim=1))
    assert torch.equal(conditioners.conditioning(label).vector, plain)
    assert torch.equal(conditioners.null(label).vector, conditioners["class"].embedding.weight[[5, 5]])


def test_it_cannot_be_dropped() -> None:
    with pytest.raises(ValueError, match="cannot be dropped"):
        AugmentConditioner(Augmentation(0.12), 6)({}, torch.tensor([True]))
