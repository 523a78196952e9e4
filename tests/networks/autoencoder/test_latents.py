"""Posteriors of latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from difflab.networks.autoencoder.latents import Deterministic, DiagonalGaussian
from golden_fixtures import draw, load


def test_a_diagonal_gaussian_gives_the_official_numbers() -> None:
    fixture = load("latent", "ldm_diag_gaussian")

    def given(name: str) -> torch.Tensor:
        spec = fixture.spec["inputs"][name]
        values = draw(fixture.spec["seed"], f"input:{name}", spec["draw"], "input") * spec.get("scale", 1.0)
        return torch.as_tensor(np.asarray(values, dtype=np.float32))

    one = DiagonalGaussian(given("parameters"))
    assert (given("parameters")[:, 4:] > 20).any(), "the end of the range is reached"
    fixture.check_close("logvar", one.log_variance)
    fixture.check_close("std", one.std)
    fixture.check_close("kl", one.kl())
    fixture.check_close("kl_other", one.kl(DiagonalGaussian(given("other"))))
    fixture.check_close("nll", one.nll(given("z")))
    certain = Deterministic(given("z"))
    fixture.check_close("std_deterministic", certain.std)
    fixture.check_close("kl_deterministic", certain.kl()[:1])
    assert certain.kl().shape == (3,)
    assert torch.equal(certain.sample(torch.randn(3, 4, 4, 4)), given("z"))


def test_it_is_the_normal_distribution_of_torch() -> None:
    moments = torch.randn(2, 6, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, other = DiagonalGaussian(moments), DiagonalGaussian(moments.flip(0))
    theirs, another = Normal(ours.mean, ours.std), Normal(other.mean, other.std)
    z = torch.randn(2, 3, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    standard = Normal(torch.zeros_like(z), torch.ones_like(z))
    torch.testing.assert_close(ours.nll(z), -theirs.log_prob(z).sum((1, 2, 3)))
    torch.testing.assert_close(ours.kl(), kl_divergence(theirs, standard).sum((1, 2, 3)))
    torch.testing.assert_close(ours.kl(other), kl_divergence(theirs, another).sum((1, 2, 3)))
    torch.testing.assert_close(ours.sample(z), ours.mean + ours.std * z)


@pytest.mark.parametrize("kind", [DiagonalGaussian, Deterministic])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_half_precision_becomes_float32(kind, dtype: torch.dtype) -> None:
    found = kind(torch.full((1, 2, 1, 1), 30.0, dtype=dtype))
    wide = torch.promote_types(dtype, torch.float32)
    assert found.moments.dtype == found.mode().dtype == found.std.dtype == found.kl().dtype == wide
    assert bool(torch.isfinite(found.sample(torch.ones(1, found.mean.shape[1], 1, 1, dtype=wide))).all())
    assert bool(torch.isfinite(found.kl()).all()), "a variance of exp(20)"
