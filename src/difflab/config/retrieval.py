"""The configuration of `difflab retrieval`: a stored CLIP, and images with captions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from difflab.config.clip import MeasuringEmbeddingsConfig

Negatives = Literal["relation", "binding", "lines"]


class RetrievalConfig(MeasuringEmbeddingsConfig):
    """`difflab retrieval`.

    out: where the records go; null = <run>/evaluations/retrieval-<split>-n<n>-<hash of the rest>. They are also added
        to the run's evaluations.jsonl.
    """

    distinct: bool = False
    """Take the first n images of the split without a caption that an earlier one has, not n spread evenly over it."""
    template: str = Field(default="{}")
    """What is embedded of a caption, which stands where {} is: 'a photo of {}' for captions that are names."""

    negatives: list[Negatives] = Field(default_factory=list)
    """Also measure the choice between an image's caption and false ones, which differ in one thing: relation = left of
    and right of, or above and below, exchanged; binding = the colours of two shapes exchanged; lines = the lines of the
    caption file after the first are false ones (data.captions=first_line)."""

    @field_validator("negatives")
    @classmethod
    def _once_each(cls, value: list[Negatives]) -> list[Negatives]:
        return list(dict.fromkeys(value))

    @field_validator("template")
    @classmethod
    def _has_one_place(cls, value: str) -> str:
        if value.count("{}") != 1:
            raise ValueError(f"template={value!r} needs exactly one {{}}, where the caption goes")
        return value
