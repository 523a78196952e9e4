"""Each pool against its own arithmetic, written out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from difflab.networks.layers import NormSpec
from difflab.networks.pools import (
    AdaptivePool,
    AdaptivePoolSpec,
    AttentionPool,
    AttentionPoolSpec,
    SpatialPool,
    SpatialPoolSpec,
    build_pool,
)

NORM = NormSpec(groups=4, eps=1e-5)


def test_adaptive_is_a_linear_layer_on_the_mean() -> None:
    torch.manual_seed(0)
    pool = build_pool(AdaptivePoolSpec(8, 3, NORM))
    assert isinstance(pool, AdaptivePool)
    h = torch.randn(2, 8, 3, 5)
    expected = torch.stack([F.silu(pool.norm(h))[:, :, i, j] @ pool.out.weight.T for i in range(3) for j in range(5)])
    torch.testing.assert_close(pool(h, []), expected.mean(dim=0) + pool.out.bias)


def test_attention_asks_for_the_mean_head_by_head() -> None:
    torch.manual_seed(0)
    pool = build_pool(AttentionPoolSpec(8, 3, NORM, heads=2, grid=3, image_size=6))
    assert isinstance(pool, AttentionPool)
    h = torch.randn(2, 8, 3, 3)
    pixels = F.silu(pool.norm(h)).flatten(2)
    tokens = (torch.cat([pixels.mean(dim=2, keepdim=True), pixels], dim=2) + pool.position).transpose(1, 2)
    q, k, v = pool.qkv(tokens).chunk(3, dim=-1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(4)).softmax(dim=-1)
        heads.append((scores @ v[..., part])[:, 0])
    torch.testing.assert_close(pool(h, []), pool.out(torch.cat(heads, dim=-1)))


def test_attention_knows_where_a_pixel_is() -> None:
    torch.manual_seed(0)
    pool = build_pool(AttentionPoolSpec(8, 3, NORM, heads=2, grid=3, image_size=6))
    h = torch.randn(2, 8, 3, 3)
    assert not torch.allclose(pool(h, []), pool(h.flip(3), []))


def test_spatial_sees_the_means_of_all_that_is_kept() -> None:
    torch.manual_seed(0)
    kept, h = [torch.randn(2, 4, 6, 6), torch.randn(2, 8, 3, 3)], torch.randn(2, 8, 3, 3)
    means = torch.cat([kept[0].mean(dim=(2, 3)), kept[1].mean(dim=(2, 3)), h.mean(dim=(2, 3))], dim=1)
    plain = build_pool(SpatialPoolSpec(20, 3, norm=None))
    assert isinstance(plain, SpatialPool)
    assert plain.hidden.out_features == 2048
    torch.testing.assert_close(plain(h, kept), plain.out(plain.hidden(means).clamp(min=0)))
    normed = build_pool(SpatialPoolSpec(20, 3, NORM))
    assert isinstance(normed, SpatialPool)
    hidden = normed.hidden(means)
    groups = hidden.view(2, 4, 512)
    variance = groups.var(dim=2, correction=0, keepdim=True)
    hidden = ((groups - groups.mean(dim=2, keepdim=True)) / (variance + 1e-5).sqrt()).view(2, 2048)
    torch.testing.assert_close(normed(h, kept), normed.out(hidden * hidden.sigmoid()))
