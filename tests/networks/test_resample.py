from __future__ import annotations

import pytest
import torch
from torch import nn

from difflab.networks.count import count_parameters
from difflab.networks.resample import Down, DownSpec, Up, UpSpec


@pytest.mark.parametrize(("method", "rows"), [("asymmetric", (0, 1, 2)), ("symmetric", (-1, 0, 1))])
def test_strided_convolutions_see_the_pixels_of_their_padding(method: str, rows: tuple[int, ...]) -> None:
    down = Down(DownSpec(1, method))
    assert down.conv is not None
    nn.init.ones_(down.conv.weight)
    nn.init.zeros_(down.conv.bias)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    seen = [i for i in rows if 0 <= i < 4]
    expected = sum(x[0, 0, i, j] for i in seen for j in seen)
    out = down(x, x, None, None)
    assert out.shape == (1, 1, 2, 2)
    torch.testing.assert_close(out[0, 0, 0, 0], expected)


def test_resampling_without_weights() -> None:
    down, up = Down(DownSpec(2, "pool")), Up(UpSpec(2, conv=False))
    x = torch.randn(1, 2, 4, 4)
    assert count_parameters(down) == count_parameters(up) == 0
    torch.testing.assert_close(down(x, x, None, None)[0, 0, 0, 0], x[0, 0, :2, :2].mean())
    torch.testing.assert_close(down(up(x, x, None, None), x, None, None), x)
