"""The base class of feature extractors: uint8 images in, features out, at full precision."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from difflab.metrics.protocol import ExtractorRecord


@dataclass(frozen=True)
class Features:
    """pool float32 [B, D], the features used by distances; logits float32 [B, K], or None."""

    pool: Tensor
    logits: Tensor | None


class FeatureExtractor(ABC):
    """A frozen network with its own resize. `record` describes everything that its numbers depend on."""

    record: ExtractorRecord

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, images: Tensor) -> Features:
        """images: uint8 [B, 3, H, W], or [B, 1, H, W] repeated to three channels; the features stay on the device.

        Runs in float32 whatever the autocast and TF32 settings. Raises ValueError for any other shape or type.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"features are of uint8 images [B, 3 or 1, H, W], not {images.dtype} {list(images.shape)}; "
                "convert with difflab.images.to_uint8"
            )
        with torch.inference_mode(), full_precision(self.device):
            return self._features(images.to(self.device).expand(-1, 3, -1, -1))

    @abstractmethod
    def _features(self, images: Tensor) -> Features: ...


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Plain float32 arithmetic: no autocast, no TF32, no bfloat16 inside convolutions and products."""
    backends: Any = torch.backends
    switches = (
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.cuda.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.matmul,
    )
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


def resize_bilinear_antialiased(images: Tensor, size: int) -> Tensor:
    """uint8 [B, C, H, W] -> float32 [B, C, size, size] in [0, 1]; triangle filter, widened when downsampling."""
    scaled = images.float() / 255.0
    return nn.functional.interpolate(scaled, (size, size), mode="bilinear", align_corners=False, antialias=True)


def sha256_of_tensors(network: nn.Module) -> str:
    """Hash of all parameters and buffers, by name and value."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
