"""Corruptions: deterministic, of every severity, and in closed form where there is one."""

from __future__ import annotations

import typing

import numpy as np
import pytest

from difflab.config.zero_shot import Corruption
from difflab.pipelines.robustness.blurs import defocus, motion, zoom
from difflab.pipelines.robustness.corruptions import RULES, corrupted

NAMES: tuple[Corruption, ...] = typing.get_args(Corruption)
RANDOM = {"gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "elastic"}


def picture(side: int = 32, channels: int = 3) -> np.ndarray:
    """A bright square on dark ground, with a little texture."""
    random = np.random.default_rng(0)
    pixels = random.integers(40, 60, size=(side, side, channels), dtype=np.uint8)
    pixels[side // 4 + 1 : 3 * side // 4 - 2, side // 4 + 1 : side // 2 + 2] += 150
    return pixels


def test_every_name_has_a_rule() -> None:
    assert set(RULES) == set(NAMES)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_corruption_keeps_the_shape_and_is_a_function_of_its_seed(name: Corruption, channels: int) -> None:
    x = picture(channels=channels)
    before = x.copy()
    found = corrupted(x, name, 3, 5)
    assert (found.shape, found.dtype) == (x.shape, np.uint8)
    assert (x == before).all()
    assert (found != x).any()
    assert (found == corrupted(x, name, 3, 5)).all()
    assert (found == corrupted(x, name, 3, 6)).all() == (name not in RANDOM)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"elastic"}))
def test_the_highest_severity_changes_more_than_the_lowest(name: Corruption) -> None:
    x = picture(64).astype(int)
    errors = [np.abs(corrupted(picture(64), name, severity, 0) - x).mean() for severity in (1, 5)]
    assert errors[0] < errors[1]


def test_noise_has_the_published_strength() -> None:
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    assert (corrupted(grey, "gaussian_noise", 1, 0) / 255.0).std() == pytest.approx(0.08, rel=0.03)
    assert (corrupted(grey, "shot_noise", 1, 0) / 255.0).std() == pytest.approx((0.502 / 60) ** 0.5, rel=0.03)
    impulse = corrupted(grey, "impulse_noise", 5, 0)
    assert (impulse != 128).mean() == pytest.approx(0.27, abs=0.01)
    assert set(np.unique(impulse)) == {0, 128, 255}


def test_contrast_shrinks_about_the_mean_and_brightness_raises_the_value() -> None:
    x = np.zeros((8, 8, 3), dtype=np.uint8)
    x[:4] = (200, 100, 0)
    low = corrupted(x, "contrast", 1, 0)
    assert low[0, 0].tolist() == [140, 70, 0]
    assert low[7, 0].tolist() == [60, 30, 0]
    bright = corrupted(x, "brightness", 1, 0)
    assert bright[0, 0].tolist() == [round(200 + 25.5), round(100 * (200 + 25.5) / 200), 0]
    assert bright[7, 0].tolist() == [26, 26, 26]


def test_pixelate_makes_blocks() -> None:
    found = corrupted(picture(), "pixelate", 5, 0)
    blocks = found.reshape(8, 4, 8, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_blurs_scale_with_the_image_and_leave_an_even_one_alone() -> None:
    even = np.full((56, 56, 3), 0.4)
    for found in (defocus(even, 10, 0.5), motion(even, 20, 15, 30), zoom(even, [1, 1.2])):
        np.testing.assert_allclose(found, 0.4, atol=1e-9)
    # A point spreads over a disk of radius 10 px at 224 px, and of 5 px at 112.
    for side, radius in ((224, 10), (112, 5)):
        point = np.zeros((side, side, 1))
        point[side // 2, side // 2] = 1
        spread = defocus(point, 10, 0.1)
        assert (spread > 0.5 * spread.max()).sum() == pytest.approx(np.pi * radius**2, rel=0.15)
        assert spread.sum() == pytest.approx(1)


def test_motion_goes_along_its_direction() -> None:
    point = np.zeros((224, 224, 1))
    point[112, 112] = 1
    rows, columns, _ = np.nonzero(motion(point, 10, 5, 0))
    assert set(rows) == {112}
    assert (columns.min(), columns.max()) == (92, 112)


def test_an_elastic_deformation_moves_shares_of_the_side() -> None:
    # The same field at two sizes: a smooth picture deforms alike.
    def smooth(side: int) -> np.ndarray:
        at = (np.arange(side) + 0.5) / side
        wave = np.sin(6 * at)[:, None] * np.cos(4 * at)[None]
        return ((wave[..., None] + 1) * 127).astype(np.uint8)

    small, large = (corrupted(smooth(side), "elastic", 1, 3).astype(float) for side in (64, 128))
    shrunk = large.reshape(64, 2, 64, 2).mean(axis=(1, 3))
    assert np.abs(small[4:-4, 4:-4, 0] - shrunk[4:-4, 4:-4]).mean() < 3
    assert np.abs(small - smooth(64)).mean() > 5
