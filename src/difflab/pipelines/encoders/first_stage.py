"""A stored autoencoder as an encoder of images: the moments of their latents."""

from __future__ import annotations

import torch
from torch import Tensor

from difflab.config.parts import FrozenConfig
from difflab.data.encoded.encoder import Encoder, ImageEncoding, Outputs
from difflab.errors import UserError, user_errors
from difflab.frozen_files import with_recorded_parts
from difflab.images import to_float
from difflab.networks.first_stage.build import mirrored_field, moments_field, moments_sha256
from difflab.networks.first_stage.config import FirstStageConfig
from difflab.networks.first_stage.model import FirstStage
from difflab.parts.loading import load_frozen
from difflab.pipelines.encoders.config import FirstStageEncoderConfig
from difflab.pipelines.stored import find_stored


def build(config: FirstStageEncoderConfig, device: torch.device, autocast: torch.dtype | None) -> Encoder:
    """Loads a stored autoencoder. Raises UserError if there is none, or if it does not take such images."""
    if autocast is not None:
        raise UserError(
            "precision=bf16-mixed: a first stage encodes in full precision, as in training: leave precision out"
        )
    described = FirstStageConfig(weights=FrozenConfig(path=config.run)).described()
    part = with_recorded_parts(described)
    stored = find_stored(config.run, "auto")
    data = None if stored.train is None else stored.train.data
    size = config.image_size or stored.config.image_size
    with user_errors():
        part.autoencoder.refuse_size(size)
    first_stage = FirstStage(part)
    load_frozen(first_stage)
    first_stage.to(device)
    sha256 = moments_sha256(part)
    field = moments_field(sha256)
    mirrored = {field: mirrored_field(field)} if config.mirrored else {}
    crop = config.crop or ("none" if data is None else data.fixed_crop)
    alpha = config.alpha or ("white" if data is None else data.alpha)

    def encode(pixels: Tensor) -> Outputs:
        images = to_float(pixels.to(device))
        as_they_are = {field: first_stage.moments(images)}
        return as_they_are | {other: first_stage.moments(images.flip(-1)) for other in mirrored.values()}

    return Encoder(
        kind="first_stage",
        sha256=sha256,
        images=ImageEncoding(
            fields=(field, *mirrored.values()),
            encode=encode,
            image_size=size,
            channels=part.autoencoder.channels,
            crop=crop,
            alpha=alpha,
            mirrored=mirrored,
            settings={
                "model": stored.config.experiment,
                "weights": part.weights.sha256,
                "image_size": size,
                "channels": part.autoencoder.channels,
                "crop": crop,
                "alpha": alpha,
            },
        ),
    )
