"""What a model is told besides x and time: a mapping of conditioners, each with its own drop rate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from difflab.config.base import Config


class ClassConditionerConfig(Config):
    """A learned embedding per class that joins the time embedding (ADM), with one more for "no class" when dropped.

    classes: how many there are, equal to data.classes.
    drop_rate: probability that a training sample loses its class (classifier-free training).
    """

    kind: Literal["class"]
    classes: Annotated[int, Field(gt=0)]
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0

    @field_validator("classes", mode="before")
    @classmethod
    def _data_has_classes(cls, classes: object) -> object:
        if classes is None:
            raise ValueError("the data has no classes; set data.classes to their number, or leave conditioning out")
        return classes


ConditionerConfig = Annotated[ClassConditionerConfig, Field()]
"""One conditioner; a union over `kind` as soon as there are two."""

ConditioningConfig = dict[str, ConditionerConfig]
"""Conditioners by name; empty for an unconditional model."""
