from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from difflab.images import to_float, to_uint8

EVERY_LEVEL = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize("rounding", ["nearest", "edm"])
def test_every_level_comes_back(rounding) -> None:
    assert torch.equal(to_uint8(to_float(EVERY_LEVEL), rounding), EVERY_LEVEL)


def test_cutting_off_loses_at_most_one_level() -> None:
    lost = EVERY_LEVEL.int() - to_uint8(to_float(EVERY_LEVEL), "truncate").int()
    assert set(lost.tolist()) <= {0, 1}


def test_the_ends_of_the_range() -> None:
    assert to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]
    for rounding in ("truncate", "nearest", "edm"):
        assert to_uint8(torch.tensor([-3.0, -1.0, 1.0, 3.0]), rounding).tolist() == [0, 0, 255, 255]


def test_the_rules_differ_where_the_official_codes_do() -> None:
    # 0.5 is 191.25 by (x + 1) * 127.5, 0.9975 is 254.68, and x * 127.5 + 128 is half a level above the first.
    x = torch.tensor([0.5, 0.9975, 0.0])
    assert to_uint8(x, "truncate").tolist() == [191, 254, 127]
    assert to_uint8(x, "nearest").tolist() == [191, 255, 128]
    assert to_uint8(x, "edm").tolist() == [191, 255, 128]


@given(st.floats(-2, 2, width=32))
def test_nearest_is_the_nearest(value: float) -> None:
    level = int(to_uint8(torch.tensor([value]), "nearest"))
    x = min(max(value, -1.0), 1.0)
    assert abs(level - (x + 1) * 127.5) <= 0.5 + 1e-4


def test_the_image_given_is_not_changed() -> None:
    x = torch.tensor([0.25, 2.0])
    to_uint8(x)
    to_uint8(x, "edm")
    assert x.tolist() == [0.25, 2.0]
    levels = EVERY_LEVEL.clone()
    to_float(levels)
    assert torch.equal(levels, EVERY_LEVEL)


def test_types_and_other_precisions() -> None:
    assert to_float(EVERY_LEVEL).dtype == torch.float32
    assert to_uint8(torch.zeros(2, dtype=torch.bfloat16)).dtype == torch.uint8
    assert to_uint8(torch.tensor([1.0], dtype=torch.bfloat16)).item() == 255


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(ValueError, match="rounding='up' is not one of truncate, nearest, edm"):
        to_uint8(torch.zeros(1), "up")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rounding", ["truncate", "nearest", "edm"])
def test_what_is_not_finite_is_no_pixel(value: float, rounding) -> None:
    with pytest.raises(ValueError, match="no pixel value"):
        to_uint8(torch.tensor([0.0, value]), rounding)
