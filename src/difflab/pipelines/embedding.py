"""Images and texts as embeddings of a stored model that has one space for both (CLIP, Radford et al. 2021)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from difflab.config.model import EmbeddingModelConfig
from difflab.errors import UserError
from difflab.images import as_float
from difflab.networks.towers.outputs import TowerOutputs
from difflab.tasks.build import Model
from difflab.text.build import build_tokenizer
from difflab.text.config import TooLong


class _Tower(Protocol):
    def outputs(self, x: Tensor) -> TowerOutputs: ...


class TwoTowers(Protocol):
    """What is asked of the network, in evaluation mode; see `difflab.networks.towers.clip.CLIP`."""

    logit_scale: Tensor

    @property
    def image_tower(self) -> _Tower: ...
    @property
    def text_tower(self) -> _Tower: ...

    def normalized(self, images: Tensor) -> Tensor: ...
    def encode_image(self, images: Tensor) -> Tensor: ...
    def encode_text(self, ids: Tensor) -> Tensor: ...


class EmbeddingPipeline:
    """Embeds images and texts.

    model:    one whose configuration is an `EmbeddingModelConfig`.
    autocast: dtype of the towers' arithmetic, None for float32; embeddings are float32 in any case.
    too_long: whether texts with too many tokens are refused or truncated, None as the model's tokenizer says.

    Methods raise UserError for embeddings that are not finite.
    """

    def __init__(self, model: Model, *, autocast: torch.dtype | None = None, too_long: TooLong | None = None) -> None:
        self.network = cast(TwoTowers, model.network)
        self.autocast = autocast
        self.device = next(model.network.parameters()).device
        tokenizer = cast(EmbeddingModelConfig, model.config).tokenizer
        if too_long is not None:
            tokenizer = tokenizer.model_copy(update={"too_long": too_long})
        self.tokenizer = build_tokenizer(tokenizer)

    @property
    def scale(self) -> float:
        """The learned factor on the cosines. Raises UserError if it is not finite."""
        scale = float(self.network.logit_scale.exp())
        if not math.isfinite(scale):
            raise UserError("the factor on the cosines (logit_scale) is not finite: take another checkpoint")
        return scale

    def images(self, pixels: Tensor) -> Tensor:
        """uint8, or floats in [-1, 1], [B, C, H, W] -> [B, dim], of unit length.

        Gradients reach floats, unless the caller turns them off.
        """
        return _unit(self.raw_images(pixels), "image")

    def image_features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(features before the last projection [B, F], embeddings [B, dim] of unit length) of images as above."""
        found = self.image_outputs(pixels)
        return _finite(found.features.float(), "image"), _unit(found.embedding, "image")

    def raw_images(self, pixels: Tensor) -> Tensor:
        """Embeddings [B, dim] of images as above, as the tower computes them: not of unit length, or float32."""
        with self._arithmetic():
            return self.network.encode_image(as_float(pixels.to(self.device)))

    def image_outputs(self, pixels: Tensor) -> TowerOutputs:
        """Everything that the tower computes of images as above."""
        with self._arithmetic():
            return self.network.image_tower.outputs(self.network.normalized(as_float(pixels.to(self.device))))

    def texts(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Embeddings [n, dim], of unit length. Raises UserError for a text that is too long."""
        found = [self._of_texts(texts[begin : begin + batch_size]) for begin in range(0, len(texts), batch_size)]
        return torch.cat(found) if found else torch.zeros(0, 0, device=self.device)

    @torch.no_grad()
    def _of_texts(self, texts: Sequence[str]) -> Tensor:
        return _unit(self.raw_texts(self.tokenizer(texts).ids), "text")

    def raw_texts(self, ids: Tensor) -> Tensor:
        """Token ids int64 [B, L] -> embeddings [B, dim] as the tower computes them: not of unit length, or float32."""
        with self._arithmetic():
            return self.network.encode_text(ids.to(self.device))

    def text_outputs(self, ids: Tensor) -> TowerOutputs:
        """Everything that the tower computes of token ids int64 [B, L]."""
        with self._arithmetic():
            return self.network.text_tower.outputs(ids.to(self.device))

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[Any]:
        if self.autocast is None:
            yield
        else:
            with torch.autocast(self.device.type, self.autocast):
                yield


def class_vectors(pipeline: EmbeddingPipeline, prompts: Sequence[Sequence[str]], batch_size: int = 256) -> Tensor:
    """A vector of unit length per class, [classes, dim], of its prompts: the mean of their embeddings of unit length.

    Radford et al. 2021, section 3.1.4; every class has at least one prompt.
    """
    if not prompts:
        return torch.zeros(0, 0, device=pipeline.device)
    found = pipeline.texts([text for of_class in prompts for text in of_class], batch_size)
    means = torch.stack([part.mean(dim=0) for part in found.split([len(of_class) for of_class in prompts])])
    return _unit(means, "class")


def _unit(embeddings: Tensor, what: str) -> Tensor:
    wide = embeddings.float()
    return _finite(wide / wide.norm(dim=-1, keepdim=True), what)


def _finite(values: Tensor, what: str) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise UserError(f"the {what} embeddings are not finite: set precision=32-true, or take another checkpoint")
    return values
