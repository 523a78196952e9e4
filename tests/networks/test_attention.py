from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from difflab.networks.attention import Attention, AttentionSpec
from difflab.networks.layers import NormSpec
from difflab.types import Conditioning

NORM = NormSpec(groups=4, eps=1e-5)


def attention_by_hand(block: Attention, h: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v head by head, with plain matrices."""
    heads, channels = block.spec.heads, block.spec.channels
    width = channels // heads
    pixels = block.norm(h).flatten(2).transpose(1, 2)
    q, k, v = block.qkv(pixels).chunk(3, dim=-1)
    if context is not None and block.context_kv is not None:
        ck, cv = block.context_kv(context).chunk(2, dim=-1)
        k, v = torch.cat([ck, k], dim=1), torch.cat([cv, v], dim=1)
    outputs = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width)
        if mask is not None:
            hidden = torch.cat([~mask, torch.zeros(mask.shape[0], pixels.shape[1], dtype=torch.bool)], dim=1)
            scores = scores.masked_fill(hidden[:, None, :], -math.inf)
        outputs.append(scores.softmax(dim=-1) @ v[..., part])
    return h + block.out(torch.cat(outputs, dim=-1)).transpose(1, 2).reshape(h.shape)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_is_attention_among_pixels(heads: int) -> None:
    torch.manual_seed(0)
    block = Attention(AttentionSpec(8, heads, NORM))
    h = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(block(h, h, None, None), attention_by_hand(block, h, None, None))


def test_extra_keys_stand_beside_the_pixels_and_masked_ones_are_unseen() -> None:
    torch.manual_seed(0)
    block = Attention(AttentionSpec(8, 2, NORM, context_channels=6))
    h, tokens = torch.randn(2, 8, 3, 3), torch.randn(2, 4, 6)
    torch.testing.assert_close(block(h, h, None, tokens), attention_by_hand(block, h, tokens, None))
    mask = torch.tensor([[True, True, False, False], [True, False, False, False]])
    told = Conditioning(tokens=tokens, token_mask=mask)
    out = block(h, h, told, tokens)
    torch.testing.assert_close(out, attention_by_hand(block, h, tokens, mask))
    other = torch.where(mask[..., None], tokens, torch.randn(2, 4, 6))
    torch.testing.assert_close(block(h, h, told, other), out)


def test_missing_tokens_are_named() -> None:
    block = Attention(AttentionSpec(8, 2, NORM, context_channels=6))
    h = torch.randn(2, 8, 3, 3)
    with pytest.raises(ValueError, match=r"give Conditioning\.tokens"):
        block(h, h, None, None)


def test_the_sum_is_scaled() -> None:
    torch.manual_seed(0)
    block = Attention(AttentionSpec(8, 2, NORM, scale=0.5))
    h = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(block(h, h, None, None), 0.5 * attention_by_hand(block, h, None, None))
