from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from difflab.conditioning.degradation.base import Draws
from difflab.conditioning.degradation.resample import INTERPOLATIONS, halved, interpolated, shrunk_at_random

IMAGE = torch.rand(3, 24, 36, generator=torch.Generator().manual_seed(0))


def test_area_is_the_mean_of_what_each_pixel_covers() -> None:
    torch.testing.assert_close(
        interpolated(IMAGE, (12, 12), "area"), F.interpolate(IMAGE[None], (12, 12), mode="area")[0]
    )
    # 3 pixels to 2: each covers one and a half.
    row = torch.tensor([[[0.0, 0.6, 0.9]]])
    torch.testing.assert_close(interpolated(row, (1, 2), "area"), torch.tensor([[[0.2, 0.8]]]))
    # 2 to 3: the middle one covers half of both.
    torch.testing.assert_close(
        interpolated(torch.tensor([[[0.0, 1.0]]]), (1, 3), "area"), torch.tensor([[[0.0, 0.5, 1.0]]])
    )


@pytest.mark.parametrize("how", INTERPOLATIONS)
def test_a_ramp_stays_one_without_a_shift(how: str) -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 64, 64).contiguous()
    small = interpolated(ramp, (16, 16), how)[0, 8]
    positions = (torch.arange(16) + 0.5) * 4 - 0.5
    torch.testing.assert_close(small, positions / 63, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("how", "seen"), [("bilinear", 0), ("bicubic", 0.09375**2), ("area", 1 / 16)])
def test_interpolation_is_not_antialiased(how: str, seen: float) -> None:
    # Of four pixels bilinear interpolation reads two, and bicubic the outer ones with a weight of -0.09.
    point = torch.zeros(1, 16, 16)
    point[0, 8, 8] = 1
    smallest = interpolated(point, (4, 4), how)
    torch.testing.assert_close(smallest.abs().max(), torch.tensor(float(seen)))


def test_the_first_half_is_smooth_or_interpolated() -> None:
    found = [halved(IMAGE, Draws(seed)) for seed in range(80)]
    assert all(one.shape == (3, 12, 18) and 0 <= one.min() <= one.max() <= 1 for one in found)
    smooth = F.interpolate(IMAGE[None], (12, 18), mode="bicubic", antialias=True)[0].clamp(0, 1)
    share = sum(torch.equal(one, smooth) for one in found) / len(found)
    assert 0.3 < share < 0.7
    # Bilinear and area are the same at a half.
    assert len({float(one.sum()) for one in found}) == len(INTERPOLATIONS)


def test_the_size_between_is_drawn_up_to_twice_the_factor() -> None:
    sizes = {tuple(shrunk_at_random(IMAGE, 2, 1.0, Draws(seed)).shape[1:]) for seed in range(200)}
    heights = {height for height, _ in sizes}
    assert heights == set(range(6, 24))
    assert all(abs(width - 1.5 * height) < 1.5 for height, width in sizes)
    assert shrunk_at_random(torch.rand(1, 2, 2), 4, 1.0, Draws(0)).shape[1:] >= (1, 1)


def test_nearest_keeps_every_pixel_where_it_is() -> None:
    ramp = torch.linspace(0, 1, 128).expand(1, 128, 128).contiguous()
    for seed in range(10):
        small = shrunk_at_random(ramp, 4, 0.0, Draws(seed))
        assert small.shape == (1, 32, 32)
        positions = (torch.arange(32) + 0.5) * 4 - 0.5
        torch.testing.assert_close(small[0, 16, 8:24], positions[8:24] / 127, atol=2e-3, rtol=0)
