"""Thresholds by hand and against diffusers."""

from __future__ import annotations

import pytest
import torch

from difflab.diffusion import thresholding
from difflab.diffusion.thresholding import DynamicThreshold, StaticThreshold


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
