"""A table of noise levels between its rows: alpha_bar is linear there, and everything else follows it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from difflab.diffusion.losses import DiffusionLoss
from difflab.diffusion.predictions import Eps
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import linear_betas
from difflab.diffusion.tables import interpolate_rows
from difflab.diffusion.weighting import P2, LossWeighting, MinSNR

BETAS = linear_betas(10, 0.01, 0.4)
PLACES = torch.tensor([-1.0, -0.5, 0.0, 3.25, 9.0], dtype=torch.float64)


def alpha_bar_at(places: torch.Tensor) -> np.ndarray:
    return np.interp(places.numpy(), np.arange(-1, 10), np.append(1.0, np.cumprod(1 - BETAS)))


def test_alpha_bar_is_linear_between_two_rows() -> None:
    process = GaussianProcess(BETAS)
    alpha_bar = alpha_bar_at(PLACES)
    x0, noise = torch.randn(2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alpha, sigma = (torch.tensor(v).reshape(5, 1, 1) for v in (np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)))
    torch.testing.assert_close(process.q_sample(x0, PLACES, noise), alpha * x0 + sigma * noise)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(process.snr(PLACES).numpy(), alpha_bar / (1 - alpha_bar))
    v = GaussianProcess(BETAS, prediction="v").target(x0, noise, x0, PLACES)
    torch.testing.assert_close(v, alpha * noise - sigma * x0)


def test_a_row_and_the_place_of_it_are_one_level() -> None:
    for time_input in ("index", "scaled_index", "alpha_bar", "sqrt_alpha_bar", "log_snr"):
        process = GaussianProcess(BETAS, time_input=time_input)
        rows = torch.arange(10)
        torch.testing.assert_close(process.network_time(rows.double()), process.network_time(rows))
        x0, noise = torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(process.q_sample(x0, rows.double(), noise), process.q_sample(x0, rows, noise))


@pytest.mark.parametrize(
    ("time_input", "expected"),
    [
        ("index", lambda t, ab: t),
        ("scaled_index", lambda t, ab: 100 * t),
        ("alpha_bar", lambda t, ab: ab),
        ("sqrt_alpha_bar", lambda t, ab: math.sqrt(ab)),
        ("log_snr", lambda t, ab: math.log(ab / (1 - ab))),
    ],
)
def test_what_the_network_is_told_between_rows_and_at_the_same_level_while_sampling(
    time_input: Any, expected: Any
) -> None:
    process = GaussianProcess(BETAS, time_input=time_input)
    places = PLACES[1:]
    told = process.network_time(places)
    assert told.dtype == torch.float32
    wanted = [expected(t, ab) for t, ab in zip(places.tolist(), alpha_bar_at(places), strict=True)]
    np.testing.assert_allclose(told.numpy(), wanted, rtol=1e-6)
    for row in (0, 9):
        assert process.time_at(process.level(row)) == pytest.approx(float(process.network_time(torch.tensor([row]))))
    spaced = process.respace([1, 4, 9])
    np.testing.assert_allclose(spaced.network_time(torch.tensor([1])), process.network_time(torch.tensor([4])))


def test_a_respaced_table_has_the_levels_of_the_first_between_its_rows_too() -> None:
    spaced = GaussianProcess(BETAS, time_input="index").respace([1, 4, 9])
    assert spaced.network_time(torch.tensor([0.5, 2.0], dtype=torch.float64)).tolist() == [2.5, 9.0]


def test_what_belongs_to_a_step_has_no_value_between_rows() -> None:
    process, x = GaussianProcess(BETAS), torch.zeros(1, 4)
    with pytest.raises(ValueError, match="posterior_mean_coef1 belongs to a step of the table and is undefined"):
        process.q_posterior_mean_variance(x, x, torch.tensor([0.5]))


def test_places_beyond_the_ends_are_the_ends() -> None:
    table = torch.tensor([3.0, 5.0], dtype=torch.float64)
    places = torch.tensor([-2.0, -1.0, -0.5, 0.5, 1.0, 7.0])
    assert interpolate_rows(table, 1.0, places).tolist() == [1.0, 1.0, 2.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize("weighting", [MinSNR(), P2()])
def test_a_weighting_counts_the_level_between_rows(weighting: LossWeighting) -> None:
    process = GaussianProcess(BETAS)
    loss = DiffusionLoss(process, "mse", weighting)
    t = torch.tensor([0.5, 3.25], dtype=torch.float64)
    x0, noise = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    got = loss(torch.zeros_like(x0), x0, process.q_sample(x0, t, noise), t, noise)["loss"]
    weights = weighting(process.snr(t), Eps())
    torch.testing.assert_close(got, noise.square().mean(dim=(1, 2)) * weights.float())
