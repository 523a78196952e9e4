"""Thresholds by hand and against diffusers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difflab.diffusion import thresholding
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.schedules import linear_betas
from difflab.diffusion.thresholding import DynamicThreshold, StaticThreshold
from difflab.types import Conditioning
from diffusion.fakes import Checked, context_at
from golden_fixtures import load


def test_static() -> None:
    x0 = torch.tensor([[-3.0, -0.5, 2.0]])
    assert StaticThreshold()(x0).tolist() == [[-1.0, -0.5, 1.0]]
    assert StaticThreshold(2.5)(x0).tolist() == [[-2.5, -0.5, 2.0]]


def test_dynamic_leaves_small_items_alone_and_is_per_item() -> None:
    x0 = torch.tensor([[0.5, -0.9, 0.1], [4.0, -2.0, 1.0]])
    out = DynamicThreshold(percentile=1.0)(x0)
    torch.testing.assert_close(out, torch.tensor([[0.5, -0.9, 0.1], [1.0, -0.5, 0.25]]))


@pytest.mark.parametrize(("percentile", "maximum"), [(0.9, 1.5), (0.995, 1.0), (0.5, 100.0)])
def test_dynamic_is_that_of_diffusers(percentile: float, maximum: float) -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=percentile, sample_max_value=maximum)
    x0 = 2 * torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(DynamicThreshold(percentile, maximum)(x0), scheduler._threshold_sample(x0))


@pytest.mark.parametrize("percentile", [0.0, 0.3, 0.995, 1.0])
def test_large_batches_have_the_same_quantile(percentile: float, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.rand(2, 101, generator=torch.Generator().manual_seed(0))
    expected = torch.quantile(values, percentile, dim=1)
    monkeypatch.setattr(thresholding, "QUANTILE_LIMIT", 10)
    torch.testing.assert_close(thresholding._quantile(values, percentile), expected)


def test_dynamic_in_isolation_and_inside_a_step() -> None:
    """Also the lesson of the fixture: with a maximum of 1, as diffusers has it by default, it is a plain clip."""
    fixture = load("diffusion", "dynamic-thresholding")
    checked = Checked(fixture)
    x, eps, noise = (fixture.input(name) for name in ("x", "eps", "noise"))
    for case in fixture.spec["cases"]:
        threshold = DynamicThreshold(case["ratio"], case["max"])
        checked(case["label"], threshold(x))
        quantile = thresholding._quantile(x.flatten(1).abs(), case["ratio"])
        checked(f"{case['label']}.quantile", quantile)
    spec = fixture.spec["step"]
    process = GaussianProcess(linear_betas(1000), posterior_clip="floor")

    def network(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        return eps

    class Given:
        def randn_like(self, x: Tensor) -> Tensor:
            return noise

    denoiser = NetworkDenoiser(network, process, threshold=DynamicThreshold(spec["ratio"], spec["max"]))
    for t in spec["t"]:
        sample, denoised = AncestralSampler().step(denoiser, process, x, context_at(process, t), Given())
        checked(f"ddpm_step.t{t}.prev_sample", sample)
        checked(f"ddpm_step.t{t}.pred_original_sample", denoised.x0)
    assert torch.equal(DynamicThreshold(0.995, 1.0)(x), StaticThreshold()(x))
    checked.assert_all()
