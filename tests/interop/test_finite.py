from __future__ import annotations

import torch

from difflab.interop.finite import nonfinite_notes


def test_the_first_names_and_the_number_are_told() -> None:
    state = {f"w{i}": torch.full((2, 2), torch.nan if i % 2 else 1.0) for i in range(10)}
    state["ids"] = torch.arange(3)
    (line,) = nonfinite_notes(state)
    assert line.endswith("w1, w3, w5 and 2 more, 5 of 11 tensors")


def test_finite_weights_need_no_remark() -> None:
    assert not list(nonfinite_notes({"w": torch.ones(3, dtype=torch.bfloat16), "empty": torch.zeros(0)}))
