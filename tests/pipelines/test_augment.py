"""A model trained with augmentation is asked for images as they are."""

from __future__ import annotations

import torch

AUGMENT = "conditioning=augment"


def test_it_draws_as_the_same_network_without_labels(pipeline_of) -> None:
    augmented = pipeline_of(AUGMENT)
    assert augmented.last.conditioners["augment"].map.weight.abs().max() > 0, "drawn weights, which would be seen"
    assert torch.equal(augmented.draw([0, 1], 0), pipeline_of().draw([0, 1], 0))


def test_it_may_be_guided_beside_a_class(pipeline_of) -> None:
    guided = ("conditioning.class_label.drop_rate=0.1", "guidance=classifier_free", "guidance.scale=3")
    augmented = pipeline_of("conditioning=class_augment", *guided)
    assert torch.equal(augmented.draw([0, 1], 0), pipeline_of("conditioning=class", *guided).draw([0, 1], 0))
