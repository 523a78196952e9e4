"""Weights of the noise levels against their definition."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from difflab.diffusion.config import MinSNRConfig
from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.levels.distributions import LogNormalDistribution
from difflab.diffusion.losses import DiffusionLoss
from difflab.diffusion.predictions import EDM, VE, X0, Eps, Prediction, Previous, V
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import cosine_betas
from difflab.diffusion.weighting import P2, EDMWeighting, LossWeighting, MinSNR

SNR = torch.tensor([1e-6, 0.01, 1.0, 5.0, 300.0], dtype=torch.float64)
WEIGHTINGS = [MinSNR(), P2(), EDMWeighting()]


def process(prediction: str) -> GaussianProcess:
    return GaussianProcess(cosine_betas(100), prediction=prediction)


def draws(n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(n)]


def test_min_snr_of_x0_is_the_clipped_snr() -> None:
    torch.testing.assert_close(MinSNR(gamma=5.0)(SNR, X0()), SNR.clamp(max=5.0))


def test_p2_of_eps_is_the_formula_of_the_paper() -> None:
    weights = P2(k=2.0, gamma=0.5)(SNR, Eps())
    torch.testing.assert_close(weights, 1.0 / (2.0 + SNR) ** 0.5)


def test_edm_weighs_the_error_of_its_denoiser_and_not_its_own_prediction() -> None:
    sigma, sigma_data = SNR**-0.5, 0.7
    weighting = EDMWeighting(sigma_data)
    torch.testing.assert_close(weighting(SNR, X0()), (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2)
    torch.testing.assert_close(weighting(SNR, EDM(sigma_data)), torch.ones_like(SNR))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_every_prediction_weighs_an_error_of_x0_alike(prediction: str, weighting: LossWeighting) -> None:
    """The same wrong image costs the same, whatever the network predicts."""
    x0, noise, wrong = draws(3)
    t = torch.tensor([3, 20, 60, 90])
    losses = []
    for predicted in ("x0", prediction):
        p = process(predicted)
        x_t = p.q_sample(x0, t, noise)
        output = p.target(wrong, p.eps_from_x0(wrong, x_t, t), x_t, t)
        loss = DiffusionLoss(p, "mse", weighting)
        losses.append(loss(output, x0, x_t, t, noise)["loss"])
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("prediction", ["eps", "v", "edm", "ve"])
def test_so_it_is_in_continuous_time(prediction: str, weighting: LossWeighting) -> None:
    x0, noise, wrong = draws(3)
    u = torch.tensor([0.1, 0.4, 0.7, 0.95])
    losses = []
    for predicted in ("x0", prediction):
        p = ContinuousProcess(LogNormalDistribution(), prediction=predicted, sigma_range=(0.002, 80.0))
        x_t = p.q_sample(x0, u, noise)
        alpha, sigma = p.q_sample(torch.ones_like(x0), u, 0 * x0), p.q_sample(0 * x0, u, torch.ones_like(x0))
        output = p.target(wrong, (x_t - alpha * wrong) / sigma, x_t, u)
        losses.append(DiffusionLoss(p, "mse", weighting)(output, x0, x_t, u, noise)["loss"])
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)


def test_prev_is_refused() -> None:
    with pytest.raises(ValueError, match="not for prev"):
        MinSNR()(SNR, Previous())


def test_losses_without_a_squared_error_are_refused() -> None:
    with pytest.raises(ValueError, match="weighting=min_snr weights a squared error"):
        DiffusionLoss(process("eps"), "l1", MinSNR())


@pytest.mark.parametrize("prediction", [Eps(), VE()])
@pytest.mark.parametrize(("weighting", "limit"), [(MinSNR(), 1.0), (P2(k=2.0, gamma=0.5), 2.0**-0.5)])
def test_without_signal_the_weight_of_eps_is_its_limit(
    prediction: Prediction, weighting: LossWeighting, limit: float
) -> None:
    weights = weighting(torch.tensor([0.0, 1e-12], dtype=torch.float64), prediction)
    torch.testing.assert_close(weights, torch.full((2,), limit, dtype=torch.float64))


@pytest.mark.parametrize(("weighting", "limit"), [(MinSNR(), 0.0), (P2(), 0.0), (EDMWeighting(), 4.0)])
def test_without_signal_x0_and_v_weigh_the_same(weighting: LossWeighting, limit: float) -> None:
    nothing = torch.zeros(1, dtype=torch.float64)
    assert [float(weighting(nothing, prediction)) for prediction in (X0(), V())] == [limit, limit]


def test_gamma_is_where_min_snr_clips() -> None:
    torch.testing.assert_close(MinSNR(gamma=2.0)(SNR, X0()), SNR.clamp(max=2.0))
    torch.testing.assert_close(MinSNR(gamma=2.0)(SNR, Eps()), SNR.clamp(max=2.0) / SNR)


def test_a_floor_truncates_the_snr() -> None:
    """max(SNR, 1) of Salimans and Ho 2022, section 4, with min-SNR's bound above."""
    torch.testing.assert_close(MinSNR(gamma=1e9, floor=1.0)(SNR, X0()), torch.maximum(SNR, torch.ones_like(SNR)))
    torch.testing.assert_close(MinSNR(gamma=5.0, floor=0.5)(SNR, X0()), SNR.clamp(0.5, 5.0))
    assert MinSNR(floor=0.5).without_signal is None
    with pytest.raises(ValidationError, match=r"floor=6\.0 is above gamma=5\.0"):
        MinSNRConfig(kind="min_snr", floor=6.0)
