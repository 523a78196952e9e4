"""The choice between a caption and false ones."""

from __future__ import annotations

import pytest
import torch

from difflab.metrics.caption_choice import chance, choices, false_captions


def test_the_nearest_is_chosen_and_ties_share() -> None:
    own = torch.tensor([0.5, 0.5, 0.5, 0.5])
    wrong = torch.tensor([0.4, 0.1, 0.6, 0.5, 0.5, 0.2, 0.5, 0.9])
    of = torch.tensor([0, 0, 1, 2, 2, 2, 3, 3])
    assert choices(own, wrong, of).tolist() == pytest.approx([1, 0, 1 / 3, 0])


def test_a_model_that_cannot_tell_is_at_chance() -> None:
    of = torch.tensor([0, 1, 1, 2, 2, 2])
    expected = (1 / 2 + 1 / 3 + 1 / 4) / 3
    assert chance(of, 3) == pytest.approx(expected)
    assert float(choices(torch.ones(3), torch.ones(6), of).mean()) == pytest.approx(expected)


def test_kinds_of_false_captions() -> None:
    text = "a small red circle above a blue square"
    assert false_captions("relation", text, [text]) == ["a small red circle below a blue square"]
    assert false_captions("binding", text, [text]) == ["a small blue circle above a red square"]
    assert false_captions("lines", text, [text, "a cat", "a dog"]) == ["a cat", "a dog"]
    assert false_captions("lines", text, [text]) == []
