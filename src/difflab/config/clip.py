"""Keys shared by the measurements of models that embed images and texts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator

from difflab.config.work import MeasuringImagesConfig
from difflab.text.config import TooLong

Label = Literal["stored", "shape", "colour", "shape_colour"]


def _no_numbers(value: Any) -> Any:
    """Names such as 7 are texts, which Hydra reads as numbers."""
    return [str(one) if isinstance(one, int | float) else one for one in value] if isinstance(value, list) else value


class MeasuringEmbeddingsConfig(MeasuringImagesConfig):
    """A command that measures a model of images and texts on real images."""

    too_long: TooLong | None = None
    """Whether texts with more tokens than the model's context are refused or truncated; null = as it was trained."""
    compile: Literal[False] = False
    """Always false: torch.compile is for networks that run many times per image, and a tower runs once."""

    @field_validator("compile", mode="before")
    @classmethod
    def _nothing_is_compiled(cls, value: Any) -> Any:
        if value is not False:
            raise ValueError(
                "torch.compile is for networks that run many times per image, and a tower runs once: leave compile out"
            )
        return value


class PromptedConfig(MeasuringEmbeddingsConfig):
    """One that classifies images by prompts."""

    templates: str | list[str] = "simple"
    """The prompts of a class: imagenet (80 templates), simple (a photo of a {}.), shapes (the words of the shapes
    data), a text file with a template in every line, or a list; each has {} where the name of the class goes."""
    class_names: Annotated[list[str] | dict[str, str] | str | None, BeforeValidator(_no_numbers)] = None
    """What prompts call the classes: a list in the order of the labels, {class of the data: name} for some of them, or
    a file (a name per line, or .json with either); null = the names in the data's index."""
    label: Label = "stored"
    """The class of an image: stored = the data's own; of the largest object of the shapes data its shape, its colour,
    or both (shape_colour)."""
