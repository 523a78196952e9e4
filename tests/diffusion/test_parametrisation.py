"""The views of a network's output against their definitions."""

from __future__ import annotations

import pytest
import torch

from difflab.diffusion.parametrisation import input_scale, target, views

NOISES = [0.002, 0.5, 80.0, 2e4]
KINDS = ["eps", "x0", "v", "edm", "ve"]


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
    a, s = torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)
    out = target(kind, x0, eps, a, s, 0.5)
    x0_x, x0_out, eps_x, eps_out = views(kind, alpha, sigma)
    torch.testing.assert_close(x0_x * x + x0_out * out, x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(eps_x * x + eps_out * out, eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("noise", NOISES)
def test_edm_is_the_table_of_its_paper(noise: float) -> None:
    """EDM table 1: c_skip, c_out and c_in of an input x0 + noise n, which is x / alpha here."""
    sd = 0.7
    alpha, sigma = level(noise)
    x0_x, x0_out, _, _ = views("edm", alpha, sigma, sd)
    assert x0_x * alpha == pytest.approx(sd**2 / (noise**2 + sd**2), rel=1e-12)
    assert x0_out == pytest.approx(noise * sd / (noise**2 + sd**2) ** 0.5, rel=1e-12)
    assert input_scale("edm", alpha, sigma, sd) * alpha == pytest.approx((noise**2 + sd**2) ** -0.5, rel=1e-12)


def test_edm_targets_have_unit_variance() -> None:
    """That is what its scalings are for: EDM appendix B.6."""
    generator = torch.Generator().manual_seed(0)
    x0 = 0.5 * torch.randn(200_000, generator=generator, dtype=torch.float64)
    eps = torch.randn(200_000, generator=generator, dtype=torch.float64)
    for noise in (0.01, 0.5, 10.0):
        alpha, sigma = (torch.tensor(value, dtype=torch.float64) for value in level(noise))
        assert float(target("edm", x0, eps, alpha, sigma, 0.5).std()) == pytest.approx(1.0, abs=0.01)


def test_v_is_defined_where_nothing_is_left_of_the_image() -> None:
    assert views("v", 0.0, 1.0) == (0.0, -1.0, 1.0, 0.0)
