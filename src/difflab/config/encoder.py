"""Base of the encoders of `difflab data encode`."""

from __future__ import annotations

from difflab.config.base import Config


class EncoderConfig(Config):
    """Base of the configurations of encoders; fields are described by a string below them."""
