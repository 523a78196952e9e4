"""A tiny network with random weights, for tests in which a real one would be slow. Its numbers mean nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from difflab.metrics.extractors.base import (
    FeatureExtractor,
    Features,
    resize_bilinear_antialiased,
    sha256_of_tensors,
)
from difflab.metrics.protocol import ExtractorRecord

SIZE = 32
FEATURES = 32
CLASSES = 10


class RandomExtractor(FeatureExtractor):
    """Two strided convolutions with seeded weights; 32 features, 10 logits."""

    def __init__(self, device: torch.device, seed: int = 0) -> None:
        trunk = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, FEATURES, 2, 2))
        network = nn.ModuleDict({"trunk": trunk, "head": nn.Linear(FEATURES, CLASSES)})
        generator = torch.Generator().manual_seed(seed)
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            drawn = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
            parameter.data.copy_(drawn)
        super().__init__(network, device)
        self.trunk, self.head = network["trunk"], network["head"]
        self.record = ExtractorRecord(
            name="random",
            weights_sha256=sha256_of_tensors(network),
            feature_dim=FEATURES,
            layer="mean",
            size=SIZE,
            resize="bilinear, antialiased",
        )

    def _features(self, images: Tensor) -> Features:
        pool = self.trunk(resize_bilinear_antialiased(images, SIZE)).mean((2, 3))
        return Features(pool, self.head(pool))
