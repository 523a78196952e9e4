"""The losses of first stages against the official ones, on the same weights and inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from difflab.networks.autoencoder.latents import DiagonalGaussian
from difflab.networks.autoencoder.quantizer import usage
from difflab.networks.patch_discriminator import PatchDiscriminator
from difflab.tasks.autoencoder.adversarial import (
    DISCRIMINATOR_LOSSES,
    MAX_WEIGHT,
    adaptive_weight,
    generator_loss,
    hinge,
    vanilla,
)
from difflab.tasks.autoencoder.likelihood import ReconstructionLoss
from golden_fixtures import Fixture, load
from networks.test_patch_discriminator import load_official

MODULES = ["ldm_kl_loss_hinge", "ldm_kl_loss_vanilla_weights", "ldm_vq_loss_hinge", "ldm_vq_loss_l2_vanilla_perplexity"]


def test_the_pieces_are_the_official_ones() -> None:
    fixture = load("latent", "ldm_gan_pieces")
    args = fixture.spec["args"]
    real, fake = fixture.input("logits_real"), fixture.input("logits_fake")
    fixture.check_close("hinge_d", hinge(real, fake).mean())
    fixture.check_close("vanilla_d", vanilla(real, fake).mean())
    weights = fixture.input("weights").abs()
    fixture.check_close("hinge_d_weighted", (weights * hinge(real, fake)).sum() / weights.sum())
    fixture.check_close("g_loss", generator_loss(fake).mean())
    nll, g = fixture.input("grad_nll"), fixture.input("grad_g")
    found = [args["disc_weight"] * adaptive_weight(a * nll, b * g) for a, b in args["grad_scales"]]
    fixture.check_close("adaptive_weight", torch.stack(found))
    used = usage(fixture.input("indices"), args["n_embed"])
    fixture.check_close("perplexity", used.perplexity)
    fixture.check_close("cluster_use", used.used)


def test_the_adaptive_weight_is_finite_at_its_worst() -> None:
    zeros, huge = torch.zeros(3, 4), torch.full((3, 4), 1e15)
    assert adaptive_weight(zeros, zeros) == 0
    assert adaptive_weight(huge, zeros) == MAX_WEIGHT
    assert adaptive_weight(zeros, huge) == 0


class Official:
    """The parts of a fixture's loss: discriminator, error of reconstructions, regularization and weights."""

    def __init__(self, fixture: Fixture) -> None:
        self.fixture, self.args = fixture, fixture.spec["args"]
        self.images, self.hidden = fixture.input("images"), fixture.input("hidden")
        self.last_layer = fixture.input("last_layer").requires_grad_()
        self.is_kl = "parameters" in fixture.spec["inputs"]
        state = fixture.state_dict()
        self.discriminator = PatchDiscriminator(
            3, width=self.args.get("disc_ndf", 64), layers=self.args["disc_num_layers"]
        )
        self.error = ReconstructionLoss(
            self.args.get("pixel_loss", "l1"),
            None,
            summed=self.is_kl,
            log_variance=float(state["logvar"]) if self.is_kl else 0.0,
        )
        self.d_loss = DISCRIMINATOR_LOSSES[self.args.get("disc_loss", "hinge")]
        # The exemplar weights of the official code.
        given = fixture.spec["inputs"].get("weights")
        self.weights = fixture.input("weights").flatten().abs() if given else torch.ones(len(self.images))

    def refresh(self, mode: str) -> None:
        load_official(self.discriminator, self.fixture, "discriminator.main.")
        self.discriminator.train(mode == "train").zero_grad()
        self.last_layer.grad = None

    def reconstructions(self) -> Tensor:
        return F.conv2d(self.hidden, self.last_layer, padding=1)

    def regularization(self) -> tuple[Tensor, float]:
        if self.is_kl:
            return DiagonalGaussian(self.fixture.input("parameters")).kl().mean(), self.args["kl_weight"]
        return self.fixture.input("codebook_loss").mean(), self.args["codebook_weight"]


def autoencoder_logs(official: Official, step: int, mode: str) -> tuple[Tensor, Mapping[str, Any]]:
    """The loss, and the values that the official code logs."""
    y = official.reconstructions()
    errors = official.error(y, official.images)
    # Each value of an image has its weight before values are averaged, and equally many of them.
    weighted, nll = (official.weights * errors.nll).mean(), errors.nll.mean()
    g = generator_loss(official.discriminator(y)).mean()
    weight = torch.zeros(())
    if mode != "nograd":
        gradients = [torch.autograd.grad(one, official.last_layer, retain_graph=True)[0] for one in (nll, g)]
        weight = official.args["disc_weight"] * adaptive_weight(*gradients)
    regularization, factor = official.regularization()
    disc_factor = official.args.get("disc_factor", 1.0) if step >= official.args["disc_start"] else 0.0
    total = weighted + factor * regularization + weight * disc_factor * g
    logs = {
        "d_weight": weight,
        "disc_factor": disc_factor,
        "g_loss": g,
        "kl_loss": regularization,
        "quant_loss": regularization,
        "logvar": official.error.log_variance,
        "nll_loss": nll,
        "rec_loss": errors.pixel.mean(),
        "p_loss": 0.0,
        "total_loss": total,
    }
    if "indices" in official.fixture.spec["inputs"]:
        used = usage(official.fixture.input("indices"), official.args["n_classes"])
        logs |= {"perplexity": used.perplexity, "cluster_usage": used.used}
    return total, logs


@pytest.mark.parametrize("mode", ["train", "eval", "nograd"])
@pytest.mark.parametrize("name", MODULES)
def test_the_whole_loss_and_its_gradients_are_the_official_ones(name: str, mode: str) -> None:
    fixture = load("latent", name)
    official = Official(fixture)
    for step in official.args["steps"]:
        official.refresh(mode)
        total, logs = autoencoder_logs(official, step, mode)
        fixture.check_close(f"ae_{mode}_{step}", numbers(logs, fixture.spec["ae_log_order"]))
        if mode != "nograd":
            total.backward()
            assert official.last_layer.grad is not None
            fixture.check_close(f"grad_last_layer_{mode}_{step}", official.last_layer.grad)
        official.refresh(mode)
        y = official.reconstructions().detach()
        real, fake = official.discriminator(official.images), official.discriminator(y)
        loss = (logs["disc_factor"] * official.d_loss(real, fake)).mean()
        found = {"disc_loss": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}
        fixture.check_close(f"disc_{mode}_{step}", numbers(found, fixture.spec["disc_log_order"]))
        if mode != "nograd":
            loss.backward()
            first = official.discriminator.layers[0].weight
            assert first.grad is not None
            fixture.check_close(f"disc_grad_norm_{mode}_{step}", first.grad.norm())


def numbers(logs: Mapping[str, Any], order: list[str]) -> Tensor:
    return torch.stack([torch.as_tensor(logs[name]).detach().double() for name in order])


def test_a_learned_log_variance_has_the_gradient_of_a_laplace_likelihood() -> None:
    images, y = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    learned = ReconstructionLoss("l1", None, summed=True, learned=True)
    learned(y, images).nll.mean().backward()
    assert learned.log_variance.grad == pytest.approx(3 * 4 * 4 * (1 - 0.5))
    fixed = ReconstructionLoss("l1", None, summed=True)
    assert not fixed(y, images).nll.requires_grad
    assert fixed(y, images).nll.tolist() == [24.0, 24.0]
    assert ReconstructionLoss("l2", None, summed=False)(y, images).nll.tolist() == [0.25, 0.25]


def test_a_perceptual_distance_counts_at_every_value() -> None:
    class Two(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.full((len(x),), 2.0)

    images, y = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    found = ReconstructionLoss("l1", Two(), perceptual_weight=0.1, summed=True)(y, images)
    torch.testing.assert_close(found.nll, torch.full((2,), 48 * (0.5 + 0.2)))
    assert found.perceptual is not None
    assert found.perceptual.tolist() == [2.0, 2.0]
