from __future__ import annotations

import torch
import torch.nn.functional as F

from difflab.networks.first_stage.preview import LinearPreview


def test_a_linear_decoder_is_found_up_to_the_size_of_a_place() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 4, 5, 6, generator=generator)
    weight, bias = 0.1 * torch.randn(4, 3, generator=generator), torch.tensor([0.1, -0.2, 0.0])
    colours = torch.einsum("bdhw,dc->bchw", latents, weight) + bias[:, None, None]
    noise = torch.randn(3, 3, 20, 24, generator=generator)
    # What is finer than a place has no mean.
    fine = noise - F.interpolate(F.avg_pool2d(noise, 4), scale_factor=4)
    images = F.interpolate(colours, scale_factor=4) + fine
    preview = LinearPreview.fitted(latents, images)
    torch.testing.assert_close(preview.weight, weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(preview.bias, bias, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(preview(latents), F.interpolate(colours, scale_factor=4).clamp(-1, 1))


def test_a_channel_that_is_the_same_everywhere_does_no_harm() -> None:
    latents = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    latents[:, 1] = 0.5
    images = latents[:, :1].repeat_interleave(2, 2).repeat_interleave(2, 3).clamp(-1, 1)
    preview = LinearPreview.fitted(latents, images)
    assert torch.isfinite(preview(latents)).all()
