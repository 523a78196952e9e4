from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from difflab.networks.blocks import ResBlock, ResBlockSpec
from difflab.networks.layers import NormSpec

NORM = NormSpec(groups=4, eps=1e-5)


def test_adds_the_embedding_and_the_shortcut() -> None:
    torch.manual_seed(0)
    block = ResBlock(ResBlockSpec(8, 16, 12, NORM))
    h, emb = torch.randn(2, 8, 4, 4), torch.randn(2, 12)
    branch = block.conv1(F.silu(block.norm1(h))) + block.embed(emb)[..., None, None]
    branch = block.conv2(F.silu(block.norm2(branch)))
    assert block.shortcut is not None
    torch.testing.assert_close(block(h, emb, None, None), block.shortcut(h) + branch)


def test_adaptive_norm_scales_first_and_shifts_second() -> None:
    torch.manual_seed(0)
    block = ResBlock(ResBlockSpec(8, 8, 12, NORM, adaptive_norm=True))
    h, emb = torch.randn(2, 8, 4, 4), torch.randn(2, 12)
    told = block.embed(emb)
    scale, shift = told[:, :8, None, None], told[:, 8:, None, None]
    branch = block.norm2(block.conv1(F.silu(block.norm1(h)))) * (1 + scale) + shift
    torch.testing.assert_close(block(h, emb, None, None), h + block.conv2(F.silu(branch)))


@pytest.mark.parametrize(("resample", "size"), [("down", 4), ("up", 16)])
def test_resamples_branch_and_shortcut(resample: str, size: int) -> None:
    torch.manual_seed(0)
    block = ResBlock(ResBlockSpec(8, 8, 12, NORM, resample=resample))
    h, emb = torch.randn(2, 8, 8, 8), torch.randn(2, 12)
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    expected = F.avg_pool2d(h, 2) if resample == "down" else h.repeat_interleave(2, 2).repeat_interleave(2, 3)
    out = block(h, emb, None, None)
    assert out.shape[-1] == size
    torch.testing.assert_close(out, expected)


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    block = ResBlock(ResBlockSpec(8, 8, 12, NORM, dropout=0.5))
    h, emb = torch.randn(2, 8, 4, 4), torch.randn(2, 12)
    assert not torch.equal(block(h, emb, None, None), block(h, emb, None, None))
    block.eval()
    assert torch.equal(block(h, emb, None, None), block(h, emb, None, None))


def test_the_sum_is_scaled() -> None:
    torch.manual_seed(0)
    block = ResBlock(ResBlockSpec(8, 8, 12, NORM))
    scaled = ResBlock(ResBlockSpec(8, 8, 12, NORM, scale=0.5))
    scaled.load_state_dict(block.state_dict())
    h, emb = torch.randn(2, 8, 4, 4), torch.randn(2, 12)
    torch.testing.assert_close(scaled(h, emb, None, None), 0.5 * block(h, emb, None, None))
