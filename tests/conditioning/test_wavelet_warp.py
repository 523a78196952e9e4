"""Affine maps of images, against images whose values are known at every place."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from difflab.conditioning.wavelet_warp import SYM6, warp

SIZE = 32
IDENTITY = torch.eye(2)[None]
STILL = torch.zeros(1, 2)


def places() -> tuple[Tensor, Tensor]:
    """(right, down) of every pixel from the centre, float64 [SIZE, SIZE]."""
    place = torch.arange(SIZE, dtype=torch.float64) - (SIZE - 1) / 2
    down, right = torch.meshgrid(place, place, indexing="ij")
    return right, down


def wave(right: Tensor, down: Tensor, period: float) -> Tensor:
    """A pattern without symmetry and without anything finer than a period of so many pixels."""
    k = 2 * math.pi / period
    return (
        0.5 * torch.cos(k * right + 0.4)
        + 0.3 * torch.sin(0.7 * k * down - 0.2)
        + 0.2 * torch.cos(k * (right - down) / 2)
    )


def rotation(angle: float) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[[cos, -sin], [sin, cos]]])


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_filter_is_orthonormal_to_its_shifts_by_two() -> None:
    taps = torch.tensor(SYM6, dtype=torch.float64)
    products = [float(taps[2 * k :] @ taps[: len(taps) - 2 * k]) for k in range(6)]
    assert products == pytest.approx([1, 0, 0, 0, 0, 0], abs=1e-11)
    assert float(taps.sum()) == pytest.approx(math.sqrt(2))


def test_no_change_gives_any_image_back() -> None:
    image = noise(2, 3, SIZE, SIZE)
    torch.testing.assert_close(warp(image, IDENTITY.expand(2, 2, 2), STILL.expand(2, 2)), image, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -5), (2, 7)])
def test_whole_pixels_move_any_image_and_its_mirror_follows(right: int, down: int) -> None:
    image = noise(1, 1, SIZE, SIZE)
    moved = warp(image, IDENTITY, torch.tensor([[right, down]], dtype=torch.float32))
    wide = torch.nn.functional.pad(image, [8] * 4, mode="reflect")
    expected = wide[:, :, 8 - down : 8 - down + SIZE, 8 - right : 8 - right + SIZE]
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_quarter_turns_of_a_smooth_image_turn_it_as_rot90(k: int) -> None:
    image = wave(*places(), period=16).float()[None, None]
    # rot90 turns from down towards right, and the map says where a pixel comes from.
    turned = warp(image, rotation(k * math.pi / 2), STILL)
    inside = slice(4, -4)
    torch.testing.assert_close(
        turned[..., inside, inside], image.rot90(k, (2, 3))[..., inside, inside], rtol=0, atol=0.03
    )


@pytest.mark.parametrize(("period", "tolerance"), [(32.0, 0.01), (16.0, 0.025), (8.0, 0.06)])
@pytest.mark.parametrize("angle", [0.3, -2.1])
def test_a_band_limited_image_comes_out_as_the_formula_says(period: float, tolerance: float, angle: float) -> None:
    """The finer the pattern, the larger what bilinear steps on twice the grid and the filter's asymmetry leave over."""
    linear, shift = 1.2 * rotation(angle), torch.tensor([[1.3, -0.6]])
    moved = warp(wave(*places(), period=period).float()[None, None], linear, shift)[0, 0].double()
    right, down = places()
    wanted = torch.stack([right - 1.3, down + 0.6], dim=-1) @ linear[0].double().T
    # Where the map stays inside the image: beyond it the mirror image goes on.
    inside = (wanted.abs() < SIZE / 2 - 3).all(dim=-1)
    assert inside.sum() > 300
    error = (moved - wave(wanted[..., 0], wanted[..., 1], period)).abs()[inside]
    assert float(error.max()) < tolerance


def test_an_image_comes_out_alike_in_any_batch() -> None:
    images, linear, shift = noise(5, 3, 16, 16), rotation(0.5).expand(5, 2, 2), torch.randn(5, 2)
    together = warp(images, linear, shift)
    torch.testing.assert_close(warp(images[2:3], linear[2:3], shift[2:3]), together[2:3], rtol=0, atol=1e-5)
