from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from difflab.networks.registry import build_block, register


def test_a_new_kind_of_block_plugs_in() -> None:
    @dataclass(frozen=True)
    class ScaleSpec:
        factor: float
        name: str = "scale"
        checkpoint: bool = False

    with pytest.raises(TypeError, match="no block is registered for ScaleSpec"):
        build_block(ScaleSpec(2.0))

    @register(ScaleSpec)
    class Scale(nn.Module):
        def __init__(self, spec: ScaleSpec) -> None:
            super().__init__()
            self.factor = spec.factor

        def forward(self, h: Tensor, emb: Tensor, cond: object, context: object) -> Tensor:
            return self.factor * h

    assert build_block(ScaleSpec(2.0))(torch.ones(1), torch.ones(1), None, None) == 2
