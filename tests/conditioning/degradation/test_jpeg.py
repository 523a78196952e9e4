from __future__ import annotations

import pytest
import torch

from difflab.conditioning.degradation.jpeg import compressed


@pytest.mark.parametrize("channels", [1, 3])
def test_a_lower_quality_is_further_from_the_image_and_values_have_8_bits(channels: int) -> None:
    noise = torch.rand(1, 20, 28, generator=torch.Generator().manual_seed(0))
    # Grey also in colours, which have half the resolution at any quality.
    image = (torch.linspace(0, 1, 28) + noise / 2).expand(channels, -1, -1) / 1.5
    errors = []
    for quality in (95, 60, 30, 5):
        small = compressed(image, quality)
        assert small.shape == image.shape
        torch.testing.assert_close(small * 255, (small * 255).round(), atol=1e-4, rtol=0)
        assert torch.equal(small, compressed(image, quality))
        errors.append(float((small - image).square().mean()))
    assert errors == sorted(errors)
    assert errors[0] < errors[-1] / 2


def test_a_flat_image_stays_and_values_outside_are_clamped() -> None:
    flat = torch.full((3, 16, 16), 128 / 255)
    torch.testing.assert_close(compressed(flat, 80), flat, atol=1.01 / 255, rtol=0)
    torch.testing.assert_close(compressed(flat + 2, 80), torch.ones_like(flat), atol=1.01 / 255, rtol=0)
