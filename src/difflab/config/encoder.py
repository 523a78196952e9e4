"""Base of the encoders of `difflab data encode`."""

from __future__ import annotations

from typing import ClassVar, Literal

from difflab.config.base import Config

FloatDtype = Literal["float16", "float32"]


class EncoderConfig(Config):
    """Base of the configurations of encoders; fields are described by a string below them.

    dtype: in which numbers are stored, unless the user says otherwise.
    """

    dtype: ClassVar[FloatDtype] = "float16"
