"""The image tower of a stored CLIP of difflab."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from difflab.config.axes import IMAGE_TOWERS
from difflab.config.parts import FrozenConfig
from difflab.images import resize
from difflab.networks.clip_image.config import CLIPImageArchitecture
from difflab.networks.frozen import Frozen, OfAnotherFile
from difflab.networks.towers.clip import Tower

_IN_A_MODEL = "network.image."


class CLIPImageEncoder(OfAnotherFile):
    """Images [B, C, H, H] in [-1, 1] -> their embeddings float32 [B, embedding_dim], not of unit length.

    Images of another size are resized as CLIP resizes them, antialiased bicubic (openai/CLIP, clip.py: _transform), and
    cut to [-1, 1]. Works in full precision, also under autocast.
    State-dict keys: tower.*, those of the image tower.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: CLIPImageArchitecture) -> None:
        super().__init__()
        self.image_size = architecture.image_size
        self.tower = IMAGE_TOWERS.builder(architecture.image)(
            architecture.image,
            image_size=architecture.image_size,
            channels=architecture.channels,
            activation=architecture.activation,
            dim=architecture.embedding_dim,
        )
        for name in ("mean", "std"):
            values = torch.tensor(getattr(architecture, name))[:, None, None]
            self.register_buffer(name, values, persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            if images.shape[-1] != self.image_size:
                images = resize(images, self.image_size, "bicubic").clamp(-1, 1)
            return cast(Tower, self.tower)(((images + 1) / 2 - self.mean) / self.std)

    def own_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            f"tower.{name.removeprefix(_IN_A_MODEL)}": tensor
            for name, tensor in state.items()
            if name.startswith(_IN_A_MODEL)
        }


def build_clip_image(weights: FrozenConfig, architecture: CLIPImageArchitecture) -> Frozen:
    """Builds the encoder, still without its weights (`load_frozen`)."""
    # As text, which can be hashed: equal ones are loaded once.
    return Frozen(weights, _empty, json.dumps(architecture.plain(), sort_keys=True))


def _empty(architecture: str) -> CLIPImageEncoder:
    return CLIPImageEncoder(CLIPImageArchitecture.model_validate_json(architecture))
