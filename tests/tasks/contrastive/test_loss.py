"""Contrastive losses against open_clip's numbers and in closed form."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from difflab.networks.towers.clip import Embeddings, unit
from difflab.tasks.contrastive.loss import InfoNCE, Loss, SigLIP
from golden_fixtures import load


def embeddings(count: int, width: int = 16, *, bias: float | None = None, scale: float = 10.0) -> Embeddings:
    generator = torch.Generator().manual_seed(count)
    image, text = (unit(torch.randn(count, width, generator=generator, dtype=torch.float64)) for _ in range(2))
    return Embeddings(image, text, torch.tensor(scale), None if bias is None else torch.tensor(bias))


@pytest.mark.parametrize("name", ["clip_infonce", "clip_infonce_hot"])
def test_infonce_and_its_gradients_are_open_clip_s(name: str) -> None:
    fixture = load("multimodal", name)
    image, text = (unit(fixture.input(f"{kind}_features")).requires_grad_() for kind in ("image", "text"))
    scale = torch.tensor(fixture.spec["args"]["logit_scale_log"], requires_grad=True)
    found = InfoNCE()(Embeddings(image, text, scale.exp()))
    fixture.check_close("loss", found.minimized)
    found.minimized.backward()
    fixture.check_close("grad_image_features", image.grad, "gradients")
    fixture.check_close("grad_text_features", text.grad, "gradients")
    fixture.check_close("grad_log_logit_scale", scale.grad, "gradients")


def test_the_loss_of_embeddings_that_are_all_alike_is_the_logarithm_of_the_batch() -> None:
    one = unit(torch.ones(7, 4))
    found = InfoNCE()(Embeddings(one, one, torch.tensor(30.0)))
    assert float(found.minimized) == pytest.approx(math.log(7), rel=1e-6)


def test_pairs_that_are_each_other_s_nearest_have_a_small_loss_and_are_hits() -> None:
    image = torch.eye(5)
    found = InfoNCE()(Embeddings(image, image, torch.tensor(20.0)))
    assert float(found.minimized) < 1e-6
    assert found.values["image_top1"].tolist() == found.values["text_top1"].tolist() == [1.0] * 5
    swapped = InfoNCE()(Embeddings(image, image[[1, 0, 2, 3, 4]], torch.tensor(20.0)))
    assert swapped.values["image_top1"].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]


def test_sigmoid_loss_is_that_of_every_pair() -> None:
    found = embeddings(6, bias=-3.0)
    logits = found.scale * found.image @ found.text.T + found.bias
    target = 2 * torch.eye(6) - 1
    expected = (
        sum(math.log1p(math.exp(-float(t * z))) for t, z in zip(target.flatten(), logits.flatten(), strict=True)) / 6
    )
    assert float(SigLIP()(found).minimized) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", [InfoNCE(), InfoNCE(local=True), SigLIP()], ids=repr)
def test_pairs_of_weight_zero_change_nothing(loss: Loss) -> None:
    bias = -1.0 if isinstance(loss, SigLIP) else None
    found = embeddings(6, bias=bias)
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    kept = weight > 0
    alone = loss(Embeddings(found.image[kept], found.text[kept], found.scale, found.bias), None)
    padded = loss(found, weight)
    for name, values in alone.values.items():
        torch.testing.assert_close(padded.values[name][kept], values)


def test_cross_entropy_is_torch_s() -> None:
    found = embeddings(9)
    logits, target = found.scale * found.image @ found.text.T, torch.arange(9)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(InfoNCE()(found).minimized, expected)
