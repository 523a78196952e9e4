"""Weights of the noise levels against their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from difflab.diffusion.losses import DiffusionLoss
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import cosine_betas
from difflab.diffusion.weighting import loss_weights


def process(prediction: str) -> GaussianProcess:
    return GaussianProcess(cosine_betas(100), prediction=prediction)


def test_none_weighs_nothing() -> None:
    assert loss_weights(process("eps"), "none") is None


def test_min_snr_of_x0_is_the_clipped_snr() -> None:
    ab = process("x0").alphas_cumprod
    np.testing.assert_allclose(loss_weights(process("x0"), "min_snr", 5.0), np.minimum(ab / (1 - ab), 5.0))


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_every_prediction_weighs_an_error_of_x0_alike(prediction: str) -> None:
    """The same wrong image costs the same, whatever the network predicts."""
    generator = torch.Generator().manual_seed(0)
    x0, noise, wrong = (torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(3))
    t = torch.tensor([3, 20, 60, 90])
    losses = []
    for kind in ("x0", prediction):
        p = process(kind)
        x_t = p.q_sample(x0, t, noise)
        output = p.target(wrong, p.eps_from_x0(wrong, x_t, t), x_t, t)
        losses.append(DiffusionLoss(p, "mse", "min_snr", gamma=2.0)(output, x0, x_t, t, noise)["loss"])
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)


def test_prev_is_refused() -> None:
    with pytest.raises(ValueError, match="not for prev"):
        loss_weights(process("prev"), "min_snr")


def test_losses_without_a_squared_error_are_refused() -> None:
    with pytest.raises(ValueError, match="weighting=min_snr weighs a squared error"):
        DiffusionLoss(process("eps"), "l1", "min_snr")
