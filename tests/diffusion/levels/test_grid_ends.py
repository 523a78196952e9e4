"""Where grids end. That their spacings are those of the official codes is held by the fixtures of the samplers."""

from __future__ import annotations

import pytest

from difflab.diffusion.levels.grid import Grid, GridSpacing
from difflab.diffusion.process import CLEAN, GaussianProcess
from difflab.diffusion.schedules import linear_betas
from diffusion.gaussian import EDM

TABLE = GaussianProcess(linear_betas(1000))


@pytest.mark.parametrize(
    ("spacing", "before", "steps"),
    [
        ("trailing", 99, 10),
        ("leading_inner", 90, 10),
        ("linspace_inner", 100, 10),
        ("leading", 100, 9),  # these visit row 0, which is where the walk ends then
        ("linspace", 111, 9),
        ("fractional", 111, 9),
    ],
)
def test_the_lowest_level_of_a_table_is_its_first_row(spacing: GridSpacing, before: float, steps: int) -> None:
    levels = Grid(10, spacing, final="lowest").levels(TABLE)
    assert len(levels) - 1 == steps
    assert levels[-1] == TABLE.level(0)
    assert levels[-2].timestep == before


def test_the_lowest_level_of_a_spacing_by_noise_is_its_last() -> None:
    levels = Grid(10, "karras", sigma_min=0.05, final="lowest").levels(TABLE)
    assert len(levels) == 10
    assert levels[-1].edm_sigma == pytest.approx(0.05)
    assert len(Grid(10, "leading", final="lowest").levels(EDM)) == 10


def test_a_clean_end_is_one_level_more() -> None:
    levels = Grid(10, "trailing").levels(TABLE)
    assert len(levels) == 11
    assert levels[-1] == CLEAN


@pytest.mark.parametrize("spacing", ["leading_inner", "linspace_inner"])
def test_inner_spacings_have_one_level_less_to_give(spacing: GridSpacing) -> None:
    levels = Grid(999, spacing).levels(TABLE)
    assert len({level.timestep for level in levels}) == 1000
    with pytest.raises(ValueError, match=r"cannot take 1000 steps .* ask for 1\.\.999"):
        Grid(1000, spacing).levels(TABLE)


def test_one_level_cannot_be_both_ends() -> None:
    with pytest.raises(ValueError, match="take 2 steps or more"):
        Grid(1, "karras", final="lowest").levels(TABLE)
