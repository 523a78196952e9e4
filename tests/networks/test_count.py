from __future__ import annotations

from torch import nn

from difflab.networks.config import UNetConfig
from difflab.networks.count import count_parameters, meta_network


def test_counting_leaves_out_what_is_frozen() -> None:
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert (count_parameters(layer), count_parameters(layer, trainable_only=True)) == (8, 6)


def test_a_meta_network_has_no_storage() -> None:
    cfg = UNetConfig(base_channels=32, channel_mult=[1, 2], blocks_per_level=1)
    assert all(p.is_meta for p in meta_network(cfg, image_size=32, learned_variance=False).parameters())
