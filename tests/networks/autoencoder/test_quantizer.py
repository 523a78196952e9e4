"""The codebook: codes, losses, gradients, usage."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from difflab.networks.autoencoder import quantizer as module
from difflab.networks.autoencoder.latents import Deterministic
from difflab.networks.autoencoder.quantizer import VectorQuantizer, usage, usage_of_counts
from golden_fixtures import draw, load


def drawn(spec: dict, seed: int, name: str) -> Tensor:
    values = draw(seed, f"input:{name}", spec["draw"], "input") * spec.get("scale", 1.0)
    return torch.as_tensor(np.asarray(values, dtype=np.float32))


@pytest.mark.parametrize(("beta_on", "kind"), [("codebook", "legacy"), ("commitment", "fixed")])
def test_loss_and_gradients_are_the_official_ones(beta_on: Literal["codebook", "commitment"], kind: str) -> None:
    fixture = load("latent", "ldm_vector_quantizer")
    seed, inputs = fixture.spec["seed"], fixture.spec["inputs"]
    codebook = VectorQuantizer(16, 4, 0.25, beta_on)
    codebook.load_state_dict(fixture.state_dict())
    z = drawn(inputs["z"], seed, "z").requires_grad_()
    found = codebook(Deterministic(z), None)
    assert found.codes is not None
    assert torch.equal(found.codes.flatten(), torch.as_tensor(fixture.arrays["indices"]).long())
    fixture.check_close("quant", found.latent)
    fixture.check_close(f"loss_{kind}", found.loss.mean())
    loss_z, loss_codebook = torch.autograd.grad(found.loss.mean(), [z, codebook.embedding.weight], retain_graph=True)
    fixture.check_close(f"grad_z_{kind}", loss_z)
    fixture.check_close(f"grad_codebook_{kind}", loss_codebook)
    (through,) = torch.autograd.grad((found.latent * drawn(inputs["upstream"], seed, "upstream")).sum(), [z])
    fixture.check_close("grad_straight_through", through)


def test_the_two_losses_differ_in_what_beta_is_on() -> None:
    one, other = VectorQuantizer(8, 2, 0.25), VectorQuantizer(8, 2, 0.25, "commitment")
    other.load_state_dict(one.state_dict())
    z = torch.randn(1, 2, 3, 3)
    # The two terms are equal in value, not in gradient.
    torch.testing.assert_close(one(Deterministic(z), None).loss, other(Deterministic(z), None).loss)


def test_codes_are_the_nearest_whatever_the_number_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    codebook = VectorQuantizer(37, 5)
    torch.nn.init.normal_(codebook.embedding.weight)
    z = torch.randn(3, 5, 4, 6, dtype=torch.float32)
    whole = codebook.nearest(z)
    places = z.permute(0, 2, 3, 1).reshape(-1, 5)
    expected = torch.cdist(places.double(), codebook.embedding.weight.double()).argmin(dim=1).view(3, 4, 6)
    assert torch.equal(whole, expected)
    monkeypatch.setattr(module, "_MOST_DISTANCES", 37 * 7)
    assert torch.equal(codebook.nearest(z), whole)
    vectors = codebook.decodable(z)
    assert torch.equal(vectors.permute(0, 2, 3, 1).reshape(-1, 5), codebook.embedding.weight[whole.flatten()])
    assert torch.equal(codebook.nearest(vectors), whole)


def test_close_codes_are_told_apart_under_autocast() -> None:
    codebook = VectorQuantizer(64, 1)
    with torch.no_grad():
        codebook.embedding.weight.copy_(1 + torch.arange(64)[:, None] / 512)
    z = codebook.embedding.weight.detach().T.reshape(1, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codebook.nearest(z).flatten(), torch.arange(64))


def test_the_initial_codebook_is_uniform_within_the_official_bounds() -> None:
    torch.manual_seed(0)
    weight = VectorQuantizer(100, 50).embedding.weight
    assert weight.abs().max() <= 1 / 100
    assert float(weight.detach().std()) == pytest.approx(1 / 100 / math.sqrt(3), rel=0.05)


def test_usage_of_codes() -> None:
    even = usage(torch.arange(12).view(2, 2, 3) % 4, size=9)
    assert float(even.perplexity) == pytest.approx(4)
    assert int(even.used) == 4
    one = usage_of_counts(torch.tensor([0, 5, 0]))
    assert (float(one.perplexity), int(one.used)) == (pytest.approx(1), 1)
    half = usage_of_counts(torch.tensor([3, 1]))
    assert float(half.perplexity) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
