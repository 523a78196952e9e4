from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from difflab.conditioning.base import ConditionerSet
from difflab.conditioning.blur import Blur, gaussian_blur
from difflab.conditioning.low_res import LowResConditioner
from difflab.diffusion.noise import SampleNoise
from difflab.types import Batch

IMAGES = torch.rand(3, 2, 8, 10, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_each_image_is_blurred_by_its_own_width_with_reflected_edges() -> None:
    sigma = torch.tensor([0.4, 1.0, 3.0])
    got = gaussian_blur(IMAGES, sigma, 5)
    padded = np.pad(IMAGES.double().numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    for sample, width in enumerate(sigma.tolist()):
        taps = np.array([math.exp(-0.5 * (k / width) ** 2) for k in range(-2, 3)])
        taps /= taps.sum()
        for y, x in ((0, 0), (3, 4), (7, 9)):
            window = padded[sample, :, y : y + 5, x : x + 5]
            expected = np.einsum("cyx,y,x->c", window, taps, taps)
            np.testing.assert_allclose(got[sample, :, y, x].numpy(), expected, atol=1e-6)


def test_a_constant_stays_and_torchvision_agrees() -> None:
    from torchvision.transforms.v2.functional import gaussian_blur as theirs

    torch.testing.assert_close(
        gaussian_blur(torch.full((1, 3, 4, 4), 0.3), torch.tensor([2.0]), 3), torch.full((1, 3, 4, 4), 0.3)
    )
    ours = gaussian_blur(IMAGES, torch.tensor([0.7] * 3), 7)
    torch.testing.assert_close(ours, theirs(IMAGES, [7, 7], [0.7, 0.7]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kernel_size", [4, 9])
def test_a_kernel_that_cannot_be_is_refused(kernel_size: int) -> None:
    with pytest.raises(ValueError, match=f"kernel_size={kernel_size} must be odd, and at most the images' 8"):
        gaussian_blur(IMAGES, torch.ones(3), kernel_size)


def test_a_sample_is_blurred_alike_in_any_batch_and_some_are_left() -> None:
    blur = Blur((0.4, 0.6), 0.5, 3)
    images = IMAGES[:1].expand(200, -1, -1, -1)
    together = blur(images, SampleNoise(range(200)))
    for row in (0, 7, 199):
        torch.testing.assert_close(together[row : row + 1], blur(images[:1], SampleNoise([row])), atol=1e-6, rtol=0)
    left = (together == images).all(dim=(1, 2, 3))
    assert 70 < int(left.sum()) < 130


def test_the_low_resolution_image_is_blurred_in_training_alone() -> None:
    conditioner = LowResConditioner(4, 8, blur=Blur((0.5, 0.5), 1.0, 3), upsample="nearest")
    conditioners = ConditionerSet({"low_res": conditioner})
    small = IMAGES[:, :, :4, :4]
    batch: Batch = {"low_res": small}

    def told() -> torch.Tensor:
        made = conditioners.conditioning(batch, seeds=[1, 2, 3])
        assert made is not None
        assert made.concat is not None
        return made.concat[:, :, ::2, ::2]

    torch.testing.assert_close(told(), gaussian_blur(small, torch.full((3,), 0.5), 3))
    conditioners.eval()
    assert torch.equal(told(), small)
    with pytest.raises(ValueError, match="the conditioner low_res draws noise: pass a seed for each sample"):
        conditioners.conditioning(batch)
