"""What samples have to show, as the command line says it."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from difflab.config.base import Config

GIVEN = ("classes", "prompts", "images", "low_res", "mask", "embeddings", "request")
"""The keys of a request."""


class RequestConfig(Config):
    """Every field that a model reads may be given; lists and folders are taken in turn, sample by sample."""

    classes: list[int | str] | None = None
    """Numbers or names of classes, as in [2] or [circle,square]. null draws them from the seed, or takes those that
    come with low_res."""
    prompts: list[str] | str | None = None
    """Captions, a list or a text file with one a line; null = those of the data split."""
    images: str | None = None
    """A folder or an archive of pictures at full size, or one picture."""
    low_res: str | None = None
    """What an upsampler enlarges: an archive that `difflab sample` wrote, or a folder of images; null = those of the
    data set it was trained on, made smaller (`split` of them)."""
    mask: str | None = None
    """A folder or an archive of masks, or one for all; white is drawn anew, black stays."""
    embeddings: str | None = None
    """An .npy file [n, ...], a row a sample; null = those of the data split."""
    request: str | None = None
    """A file of JSON lines, a sample a line, with any fields and paths relative to it."""

    @model_validator(mode="after")
    def _lists_are_not_empty(self) -> Self:
        if self.classes == []:
            raise ValueError("classes=[] names no class; list some, or leave classes=null to draw them from the seed")
        if self.prompts in ([], ""):
            raise ValueError("prompts names none: list some, or give a text file with one a line")
        return self
