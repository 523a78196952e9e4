"""Small CLIPs, with a ViT and with a ResNet, and a batch for them."""

from __future__ import annotations

import torch
from torch import Tensor

from difflab.networks.build import build_network
from difflab.networks.towers.clip import CLIP
from difflab.networks.towers.config import CLIPConfig

TOWERS = ("vit", "resnet")
CONTEXT, VOCABULARY, PAIRS = 8, 40, 8


def small_clip(tower: str, *, bias: float | None = None) -> CLIP:
    """A CLIP for images of 32 (ViT) or 64 pixels, in float64 and training mode."""
    image = {
        "vit": {"kind": "vit", "patch_size": 8, "width": 16, "layers": 2, "heads": 2},
        "resnet": {"kind": "resnet", "depths": [1, 1, 1, 1], "width": 4, "heads": 2},
    }[tower]
    text = {"width": 16, "layers": 2, "heads": 2, "context_length": CONTEXT, "vocabulary": VOCABULARY}
    config = CLIPConfig.model_validate(
        {
            "kind": "clip",
            "embedding_dim": 12,
            "activation": "gelu",
            "image": image,
            "text": {"kind": "transformer", **text},
            "logit_bias_init": bias,
        }
    )
    torch.manual_seed(0)
    network = build_network(config, image_size=64 if tower == "resnet" else 32, learned_variance=False)
    assert isinstance(network, CLIP)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # Those that start at zero would hide what is before them.
            torch.nn.init.normal_(module.weight, 1.0, 0.1)
    return network.double().train()


def pairs(tower: str, count: int = PAIRS) -> tuple[Tensor, Tensor]:
    """Images in [-1, 1] and token ids."""
    generator = torch.Generator().manual_seed(1)
    size = 64 if tower == "resnet" else 32
    images = torch.rand(count, 3, size, size, generator=generator, dtype=torch.float64) * 2 - 1
    ids = torch.randint(1, VOCABULARY - 1, (count, CONTEXT), generator=generator)
    ids[:, -1] = VOCABULARY - 1
    return images, ids


def gradients(network: CLIP) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
