"""Training losses against the official combination table."""

from __future__ import annotations

import pytest
import torch

from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.levels.distributions import CosineDistribution
from difflab.diffusion.losses import DiffusionLoss
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import cosine_betas, linear_betas
from diffusion.fakes import PREDICTIONS, VARIANCES, Checked, FakeNetwork, official_process
from golden_fixtures import load

KINDS = {"MSE": ("mse", "hybrid_unscaled"), "RESCALED_MSE": ("mse", "hybrid"), "KL": "kl", "RESCALED_KL": "rescaled_kl"}


@pytest.mark.parametrize("name", ["losses", "losses-respaced"])
def test_losses_fixture(name: str) -> None:
    fixture = load("diffusion", name)
    checked = Checked(fixture)
    x0, noise, t = (fixture.input(key) for key in ("x_start", "noise", "t"))
    for mean in PREDICTIONS:
        for variance in VARIANCES:
            process = official_process(fixture.spec["process"], mean, variance)
            x_t = process.q_sample(x0, t, noise)
            out = FakeNetwork(fixture, mean, variance)(x_t, process.network_time(t))
            for official, kinds in KINDS.items():
                kind = kinds if isinstance(kinds, str) else kinds[process.learns_variance]
                terms = DiffusionLoss(process, kind)(out, x0, x_t, t, noise)
                for term, value in terms.items():
                    checked(f"{mean}.{variance}.{official}.{term}", value)
    checked.assert_all()


def test_l1_and_v_by_hand() -> None:
    process = GaussianProcess(cosine_betas(10), prediction="v")
    x0, noise, out = torch.randn(3, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0)).unbind()
    t = torch.tensor([0, 3, 6, 9])
    x_t = process.q_sample(x0, t, noise)
    alpha = torch.as_tensor(process.alphas_cumprod[t.numpy()]).sqrt().float().reshape(-1, 1, 1, 1)
    sigma = (1 - alpha**2).sqrt()
    error = alpha * noise - sigma * x0 - out
    torch.testing.assert_close(
        DiffusionLoss(process, "l1")(out, x0, x_t, t, noise)["loss"], error.abs().mean((1, 2, 3))
    )
    torch.testing.assert_close(
        DiffusionLoss(process, "mse")(out, x0, x_t, t, noise)["loss"], (error**2).mean((1, 2, 3))
    )


def test_the_bound_of_a_hybrid_trains_the_variance_alone() -> None:
    process = GaussianProcess(cosine_betas(20), variance="learned_range")
    x0, noise = torch.randn(2, 3, 2, 2, 2, generator=torch.Generator().manual_seed(1)).unbind()
    t = torch.tensor([1, 7, 15])
    x_t = process.q_sample(x0, t, noise)
    out = torch.zeros(3, 4, 2, 2, requires_grad=True)
    DiffusionLoss(process, "hybrid")(out, x0, x_t, t, noise)["vb"].sum().backward()
    assert out.grad is not None
    assert out.grad[:, :2].abs().max() == 0
    assert out.grad[:, 2:].abs().max() > 0


def test_combinations_that_train_nothing_are_refused() -> None:
    fixed, learned = GaussianProcess(linear_betas(10)), GaussianProcess(linear_betas(10), variance="learned_range")
    with pytest.raises(ValueError, match="does not train variance=learned_range: use loss=hybrid"):
        DiffusionLoss(learned, "mse")
    with pytest.raises(ValueError, match="needs a learned variance"):
        DiffusionLoss(fixed, "hybrid")
    with pytest.raises(ValueError, match="loss='mae' is not one of"):
        DiffusionLoss(fixed, "mae")
    continuous = ContinuousProcess(CosineDistribution(), prediction="eps")
    with pytest.raises(ValueError, match="loss=kl is a bound on a table of steps; in continuous time use loss=mse"):
        DiffusionLoss(continuous, "kl")
    with pytest.raises(ValueError, match="outputs 3 channels for an input of 3; variance=learned_range needs 6"):
        DiffusionLoss(learned, "hybrid")(
            *(torch.zeros(1, 3, 2, 2),) * 3, torch.zeros(1).long(), torch.zeros(1, 3, 2, 2)
        )
