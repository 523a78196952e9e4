"""Builds first stages from their configurations, and tells whose latents are whose."""

from __future__ import annotations

import hashlib
import json

from difflab.config.parts import without_places
from difflab.frozen_files import with_recorded_parts
from difflab.networks.first_stage.config import FirstStageConfig
from difflab.networks.first_stage.model import FirstStage

PREFIX = "latent_moments_"
"""With which the names of all fields of moments begin."""


def build_first_stage(config: FirstStageConfig | None) -> FirstStage | None:
    """Builds the first stage of a configuration, still without its weights (`load_frozen`); None for None."""
    return None if config is None else FirstStage(config)


def moments_sha256(config: FirstStageConfig) -> str:
    """Returns a hash of all of the autoencoder that affects the moments of an image: its weights and architecture.

    Raises UserError if the weights are not found and their hash is not recorded.
    """
    known = config if config.weights.sha256 is not None else with_recorded_parts(config)
    content = [without_places(known.weights).plain(), known.autoencoder.architecture(0)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def moments_field(sha256: str) -> str:
    """Returns the name of the field of a batch that has the moments of its images [B, moments_channels, h, w].

    sha256: `moments_sha256`.
    """
    return f"{PREFIX}{sha256[:8]}"


def mirrored_field(field: str) -> str:
    """Returns the name of the field with the moments of the mirrored images."""
    return f"{field}_mirrored"
