"""A stored CLIP as an encoder of images and captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from difflab.config.model import EmbeddingModelConfig
from difflab.data.encoded.encoder import CaptionEncoding, Encoder, ImageEncoding, Outputs
from difflab.errors import UserError
from difflab.frozen_files import cached_sha256
from difflab.networks.towers.outputs import TowerOutputs
from difflab.pipelines.embedding import EmbeddingPipeline
from difflab.pipelines.encoders.config import CLIPEncoderConfig
from difflab.pipelines.measuring import require_measured
from difflab.pipelines.stored import Stored, find_stored, load_stored
from difflab.text.base import Tokens
from difflab.text.build import build_tokenizer

_IMAGE, _CAPTION = "image_", "caption_"
_EMBEDDING, _MASK = "embedding", "mask"


def build(config: CLIPEncoderConfig, device: torch.device, autocast: torch.dtype | None) -> Encoder:
    """Loads a stored CLIP. Raises UserError if there is none, or the model is another one."""
    require_measured(config.run, find_stored(config.run, config.weights).config, "embeddings")
    model, stored = load_stored(config.run, config.weights, device)
    pipeline = EmbeddingPipeline(model, autocast=autocast)
    precision = "float32" if autocast is None else str(autocast).removeprefix("torch.")
    common = {"model": stored.config.experiment, "precision": precision}
    return Encoder(
        kind="clip",
        sha256=cached_sha256(stored.weights),
        images=_of_images(config, pipeline, stored, common),
        captions=_of_captions(config, pipeline, stored, common),
    )


def _of_images(
    config: CLIPEncoderConfig, pipeline: EmbeddingPipeline, stored: Stored, common: dict[str, str]
) -> ImageEncoding | None:
    parts, prefix = _parts(config, _IMAGE), (config.prefix or "") + _IMAGE
    if not parts:
        return None
    data = None if stored.train is None else stored.train.data
    crop = config.crop or ("none" if data is None else data.fixed_crop)
    alpha = config.alpha or ("white" if data is None else data.alpha)
    size = stored.config.image_size

    def encode(pixels: Tensor) -> Outputs:
        if parts == [_EMBEDDING]:
            # The norm and the projection of one token, as in training.
            return {f"{prefix}{_EMBEDDING}": pipeline.raw_images(pixels)}
        return _chosen(pipeline.image_outputs(pixels), parts, prefix)

    return ImageEncoding(
        fields=tuple(prefix + part for part in parts),
        encode=encode,
        image_size=size,
        channels=stored.config.channels,
        crop=crop,
        alpha=alpha,
        settings={**common, "image_size": size, "channels": stored.config.channels, "crop": crop, "alpha": alpha},
    )


def _of_captions(
    config: CLIPEncoderConfig, pipeline: EmbeddingPipeline, stored: Stored, common: dict[str, str]
) -> CaptionEncoding | None:
    parts, prefix = _parts(config, _CAPTION), (config.prefix or "") + _CAPTION
    if not parts:
        return None
    tokenizer = cast(EmbeddingModelConfig, stored.config).tokenizer
    if config.too_long is not None:
        tokenizer = tokenizer.model_copy(update={"too_long": config.too_long})
    of_tower = [part for part in parts if part != _MASK]

    def encode(tokens: Tokens) -> Outputs:
        mask = {f"{prefix}{_MASK}": tokens.mask} if _MASK in parts else {}
        if of_tower == [_EMBEDDING]:
            return {f"{prefix}{_EMBEDDING}": pipeline.raw_texts(tokens.ids), **mask}
        return {**(_chosen(pipeline.text_outputs(tokens.ids), of_tower, prefix) if of_tower else {}), **mask}

    return CaptionEncoding(
        fields=tuple(prefix + part for part in parts),
        encode=encode,
        tokenizer=build_tokenizer(tokenizer),
        settings={
            **common,
            "tokenizer": tokenizer.in_words(),
            "context_length": tokenizer.context_length,
            "too_long": tokenizer.too_long,
        },
    )


def _parts(config: CLIPEncoderConfig, prefix: str) -> list[str]:
    return [field.removeprefix(prefix) for field in config.fields if field.startswith(prefix)]


def _chosen(outputs: TowerOutputs, parts: Sequence[str], prefix: str) -> Outputs:
    found = {part: getattr(outputs, part) for part in parts}
    missing = next((part for part, value in found.items() if value is None), None)
    if missing is not None:
        raise UserError(f"this tower has no {missing}: leave {prefix}{missing} out of fields")
    return {prefix + part: value for part, value in found.items()}
