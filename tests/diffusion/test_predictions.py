"""The views of a network's output against their definitions."""

from __future__ import annotations

import pytest
import torch

from difflab.config.axes import PREDICTIONS
from difflab.diffusion.predictions import EDM, Prediction, V, prediction_of

NOISES = [0.002, 0.5, 80.0, 2e4]
KINDS = [name for name in PREDICTIONS if not prediction_of(name).rows_only]


def level(noise: float) -> tuple[float, float]:
    alpha = (1 + noise**2) ** -0.5
    return alpha, noise * alpha


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_output_gives_back_x0_and_eps(kind: str, noise: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 5, generator=generator, dtype=torch.float64).unbind()
    alpha, sigma = level(noise)
    x = alpha * x0 + sigma * eps
    prediction = prediction_of(kind)
    out = prediction.target(x0, eps, alpha, sigma)
    x0_x, x0_out, eps_x, eps_out = prediction.views(alpha, sigma)
    torch.testing.assert_close(x0_x * x + x0_out * out, x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(eps_x * x + eps_out * out, eps, rtol=1e-9, atol=1e-9)
    read = prediction.read(out, x, alpha, sigma)
    torch.testing.assert_close(read.x0, x0, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(read.eps, eps, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("sigma_data", [0.5, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_x0_is_as_large_in_the_output_as_its_views_say(kind: str, sigma_data: float) -> None:
    prediction = prediction_of(kind, sigma_data)
    snr = torch.tensor([1e-4, 0.3, 1.0, 40.0], dtype=torch.float64)
    by_views, own = Prediction.error_per_x0_error(prediction, snr), prediction.error_per_x0_error(snr)
    torch.testing.assert_close(by_views + 0 * snr, own + 0 * snr)


def test_what_is_not_known_is_refused_with_what_is() -> None:
    with pytest.raises(ValueError, match="prediction='epsilon' is not one of eps, x0, v, prev, edm, ve"):
        prediction_of("epsilon")


@pytest.mark.parametrize("noise", NOISES)
def test_edm_is_the_table_of_its_paper(noise: float) -> None:
    """EDM table 1: c_skip, c_out and c_in of an input x0 + noise n, which is x / alpha here."""
    sd = 0.7
    alpha, sigma = level(noise)
    x0_x, x0_out, _, _ = EDM(sd).views(alpha, sigma)
    assert x0_x * alpha == pytest.approx(sd**2 / (noise**2 + sd**2), rel=1e-12)
    assert x0_out == pytest.approx(noise * sd / (noise**2 + sd**2) ** 0.5, rel=1e-12)
    assert EDM(sd).input_scale(alpha, sigma) * alpha == pytest.approx((noise**2 + sd**2) ** -0.5, rel=1e-12)


def test_edm_targets_have_unit_variance() -> None:
    """That is what its scalings are for: EDM appendix B.6."""
    generator = torch.Generator().manual_seed(0)
    x0 = 0.5 * torch.randn(200_000, generator=generator, dtype=torch.float64)
    eps = torch.randn(200_000, generator=generator, dtype=torch.float64)
    for noise in (0.01, 0.5, 10.0):
        alpha, sigma = (torch.tensor(value, dtype=torch.float64) for value in level(noise))
        assert float(EDM().target(x0, eps, alpha, sigma).std()) == pytest.approx(1.0, abs=0.01)


def test_v_is_defined_where_nothing_is_left_of_the_image() -> None:
    assert V().views(0.0, 1.0) == (0.0, -1.0, 1.0, 0.0)
