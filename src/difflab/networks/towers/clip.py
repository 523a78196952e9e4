"""CLIP: an image tower and a text tower with one embedding space (Radford et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from difflab.config.axes import IMAGE_TOWERS, TEXT_TOWERS
from difflab.networks.towers.outputs import TowerOutputs
from difflab.networks.towers.positions import resized_positions

if TYPE_CHECKING:
    from difflab.networks.towers.config import CLIPConfig


class Tower(Protocol):
    """An image or a text tower."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def outputs(self, x: Tensor) -> TowerOutputs: ...


class Embeddings(NamedTuple):
    """image, text: [B, dim], of unit length. scale: [], the factor on their cosines; bias: [], None without one."""

    image: Tensor
    text: Tensor
    scale: Tensor
    bias: Tensor | None = None


class CLIP(nn.Module):
    """Embeds images and texts so that those that belong together have a large cosine.

    mean, std: of each channel of images within [0, 1], by which they are normalized.
    State-dict keys: image.*, text.*, logit_scale [] (the logarithm of the scale) and, with a bias, logit_bias [].
    """

    def __init__(
        self,
        image: nn.Module,
        text: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        log_scale: float,
        bias: float | None = None,
    ) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.logit_scale = nn.Parameter(torch.tensor(log_scale))
        self.logit_bias = None if bias is None else nn.Parameter(torch.tensor(bias))
        self._normalization = tuple(mean), tuple(std)
        # Not buffers, which a network without storage would not have; a copy in each step would wait for the device.
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def image_tower(self) -> Tower:
        return cast(Tower, self.image)

    @property
    def text_tower(self) -> Tower:
        return cast(Tower, self.text)

    def normalized(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1], as the image tower takes them."""
        device = images.device
        if device not in self._on_device:
            mean, std = (torch.tensor(values, device=device)[:, None, None] for values in self._normalization)
            self._on_device[device] = mean, std
        mean, std = self._on_device[device]
        return ((images + 1) / 2 - mean.to(images.dtype)) / std.to(images.dtype)

    def encode_image(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] -> embeddings [B, dim], not of unit length."""
        return self.image_tower(self.normalized(images))

    def encode_text(self, ids: Tensor) -> Tensor:
        """Token ids int64 [B, L] -> embeddings [B, dim], not of unit length."""
        return self.text_tower(ids)

    def fitted(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """A state dict of the same network for images of another size, or for longer texts, as one of this network, and
        a line for each position embedding that was changed.

        Those of patches are interpolated (`resized_positions`), those of texts truncated. Raises ValueError if texts of
        this network are longer: there are no positions for their last tokens.
        """
        own, fitted, lines = self.state_dict(), dict(state), []
        for key in ("image.position", "image.pool.position"):
            if key in own and key in state and len(state[key]) != len(own[key]):
                fitted[key] = resized_positions(state[key], math.isqrt(len(own[key]) - 1))
                lines.append(f"{key} is resized from {len(state[key]) - 1} to {len(own[key]) - 1} patches")
        key = "text.position"
        if key in own and key in state and len(state[key]) != len(own[key]):
            theirs, ours = len(state[key]), len(own[key])
            if theirs < ours:
                raise ValueError(f"its texts have {theirs} tokens, not {ours}: set tokenizer.context_length={theirs}")
            fitted[key] = state[key][:ours]
            lines.append(f"{key} is truncated from {theirs} to {ours} tokens")
        return fitted, lines

    def forward(self, images: Tensor, ids: Tensor) -> Embeddings:
        """Images [B, C, H, W] in [-1, 1] and token ids int64 [B, L]; everything is returned in float32 or wider."""
        image, text = unit(self.encode_image(images)), unit(self.encode_text(ids))
        return Embeddings(image, text, self.logit_scale.exp(), self.logit_bias)


def unit(embeddings: Tensor) -> Tensor:
    """Embeddings [..., dim] divided by their length, in float32 or wider."""
    wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    return wide / wide.norm(dim=-1, keepdim=True)


def build(config: CLIPConfig, *, image_size: int, learned_variance: bool) -> CLIP:
    """Builds the network of a configuration; see `build_network`. Embeddings have no variance."""
    image = IMAGE_TOWERS.builder(config.image)(
        config.image,
        image_size=image_size,
        channels=config.channels,
        activation=config.activation,
        dim=config.embedding_dim,
    )
    text = TEXT_TOWERS.builder(config.text)(config.text, activation=config.activation, dim=config.embedding_dim)
    return CLIP(
        image, text, mean=config.mean, std=config.std, log_scale=config.log_scale_init, bias=config.logit_bias_init
    )
