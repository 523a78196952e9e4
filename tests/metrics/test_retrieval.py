"""Ranks of a similarity matrix made by hand, ties, and captions that several images have."""

from __future__ import annotations

import pytest
import torch

from difflab.metrics import retrieval
from difflab.metrics.retrieval import numbered, padded, ranks, recall


def own(n: int) -> torch.Tensor:
    return torch.arange(n)[:, None]


def test_ranks_of_a_matrix_made_by_hand() -> None:
    # Row by row: first, second, third, and last of four.
    scores = torch.tensor([[0.9, 0.1, 0.2, 0.3], [0.8, 0.5, 0.1, 0.2], [0.7, 0.6, 0.5, 0.1], [0.9, 0.8, 0.7, 0.6]])
    found = ranks(scores, torch.eye(4), own(4), own(4))
    assert found.tolist() == [0, 1, 2, 3]
    assert [float(recall(found, k).mean()) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
    assert ranks(torch.eye(4), scores, own(4), own(4)).tolist() == [0, 2, 1, 0]


def test_embeddings_that_agree_find_each_other() -> None:
    assert ranks(torch.eye(5), torch.eye(5), own(5), own(5)).tolist() == [0] * 5


def test_of_equal_ones_the_first_is_ahead() -> None:
    same = torch.ones(4, 3)
    found = ranks(same, same, own(4), own(4))
    assert found.tolist() == [0, 1, 2, 3]
    assert float(recall(found, 1).mean()) == 1 / 4


def test_any_caption_of_the_image_is_right() -> None:
    texts, of_image = numbered([["a", "b"], ["c"], ["d", "e", "f"]])
    assert (texts, of_image) == (list("abcdef"), [[0, 1], [2], [3, 4, 5]])
    images = torch.tensor([[0, 1.0, 0, 0, 0, 0], [0, 1.0, 0.5, 0, 0, 0], [0, 0, 0, 0.1, 0.2, 0.3]])
    assert ranks(images, torch.eye(6), padded(of_image), own(6)).tolist() == [0, 1, 0]
    # Caption 5 is nearest to its own image, caption 1 as near to another one, which comes later.
    assert ranks(torch.eye(6), images, own(6), padded(of_image)).tolist() == [0, 0, 0, 0, 0, 0]


def test_an_equal_caption_is_right_and_every_copy_stands_in_line() -> None:
    texts, of_image = numbered([["a"], ["b"], ["a"], ["a"]])
    assert (texts, of_image) == (["a", "b"], [[0], [1], [0], [0]])
    captions = torch.eye(2)[torch.tensor([0, 1, 0, 0])]
    images = torch.tensor([[0.2, 0.9], [0.9, 0.2], [0.9, 0.2], [0.9, 0.2]])
    groups = padded(of_image)
    # Image 0 finds b first; image 1 the three copies of a before its b.
    assert ranks(images, captions, groups, groups).tolist() == [1, 3, 0, 0]
    # For every a, image 1 is as near as image 2, and comes earlier.
    assert ranks(captions, images, groups, groups).tolist() == [1, 1, 1, 1]


def test_padding_has_no_group_in_common() -> None:
    groups = padded([[0, 1], [2]])
    assert groups.tolist() == [[0, 1], [2, -1]]
    assert ranks(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2), groups, groups).tolist() == [0, 1]


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_blocks_change_nothing(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(23, 4, generator=generator) for _ in range(2))
    whole = ranks(a, b, own(23), own(23))
    monkeypatch.setattr(retrieval, "AT_ONCE", at_once)
    assert ranks(a, b, own(23), own(23)).tolist() == whole.tolist()
