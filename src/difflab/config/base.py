"""The base of every configuration model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Strict and closed: unknown keys and values of the wrong type are errors, and a built model does not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
