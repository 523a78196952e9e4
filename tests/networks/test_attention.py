from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from difflab.networks.attention import FEW_TOKENS, Attention, AttentionSpec, attend
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
    with pytest.raises(ValueError, match=r"pass Conditioning\.tokens"):
        block(h, h, None, None)


def test_the_sum_is_scaled() -> None:
    torch.manual_seed(0)
    block = Attention(AttentionSpec(8, 2, NORM, scale=0.5))
    h = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(block(h, h, None, None), 0.5 * attention_by_hand(block, h, None, None))


def heads_of(keys: int, dtype: torch.dtype) -> list[Tensor]:
    """A query for 9 pixels and 2 heads of 8 channels, and its keys and values; they want gradients."""
    torch.manual_seed(0)
    return [torch.randn(2, 2, n, 8, dtype=dtype).requires_grad_() for n in (9, keys, keys)]


def gradients(attended: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad(attended, inputs, torch.randn(attended.shape).to(attended.dtype))


def is_fused(attended: Tensor) -> bool:
    assert attended.grad_fn is not None
    return "ScaledDotProduct" in attended.grad_fn.name()


@pytest.mark.parametrize(
    ("dtype", "keys", "fused"),
    [
        (torch.bfloat16, 1, False),
        (torch.bfloat16, FEW_TOKENS, False),
        (torch.bfloat16, FEW_TOKENS + 1, True),
        (torch.float32, 9, True),
        (torch.float32, FEW_TOKENS + 1, True),
    ],
)
def test_a_cpu_multiplies_whole_batches_of_few_tokens_in_bf16(dtype: torch.dtype, keys: int, fused: bool) -> None:
    assert is_fused(attend(*heads_of(keys, dtype))) == fused


@pytest.mark.parametrize("masked", [False, True])
def test_float32_and_drawing_are_the_fused_kernel_to_the_bit(masked: bool) -> None:
    mask = torch.tensor([1, 0, 1, 0, 1], dtype=torch.bool)[None, None, None] if masked else None
    query, key, value = inputs = heads_of(5, torch.float32)
    ours, torchs = attend(*inputs, mask), F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert torch.equal(ours, torchs)
    assert all(map(torch.equal, gradients(ours, inputs), gradients(torchs, inputs)))
    with torch.no_grad():
        query, key, value = (t.bfloat16() for t in inputs)
        assert torch.equal(attend(query, key, value, mask), F.scaled_dot_product_attention(query, key, value, mask))


@pytest.mark.parametrize("masked", [False, True])
def test_whole_batches_in_bf16_are_attention_and_its_gradients(masked: bool) -> None:
    mask = torch.tensor([[1, 0, 1, 0, 1], [0, 0, 0, 0, 1]], dtype=torch.bool)[:, None, None] if masked else None
    inputs = heads_of(5, torch.bfloat16)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    ours, theirs = attend(*inputs, mask), F.scaled_dot_product_attention(*exact, attn_mask=mask)
    for found, right in zip((ours, *gradients(ours, inputs)), (theirs, *gradients(theirs, exact)), strict=True):
        # Scores of a few units and weights below 1, each rounded to 8 bits.
        torch.testing.assert_close(found.double(), right, rtol=0, atol=0.05)


def test_a_training_step_under_autocast_is_attention_by_hand() -> None:
    torch.manual_seed(0)
    block = Attention(AttentionSpec(8, 2, NORM, context_channels=6))
    h, tokens = torch.randn(2, 8, 3, 3), torch.randn(2, 4, 6)
    told = Conditioning(tokens=tokens, token_mask=torch.tensor([[True, True, False, False], [True] + 3 * [False]]))
    with torch.autocast("cpu", torch.bfloat16):
        out = block(h, h, told, tokens)
    by_hand = attention_by_hand(block, h, tokens, told.token_mask)
    torch.testing.assert_close(out.float(), by_hand, rtol=0, atol=0.05)
    weights = [block.qkv.weight, block.context_kv.weight] if block.context_kv is not None else []
    for found, right in zip(gradients(out, weights), gradients(by_hand, weights), strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=0.1)
