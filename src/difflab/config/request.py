"""What samples have to show, as the command line says it."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from difflab.config.base import Config

GIVEN = ("classes", "prompts", "images", "low_res", "mask", "embeddings", "request")
"""The keys of a request."""


class RequestConfig(Config):
    """Every field that a model reads may be given; lists and folders are taken in turn, sample by sample.

    classes: numbers or names of classes. null draws them from the seed, or takes those that come with low_res.
    prompts: captions, a list of them or a text file with one a line; null = those of the data split.
    images: a folder or an archive of pictures at full size, or one picture.
    low_res: what an upsampler enlarges: an archive that `difflab sample` wrote, or a folder of images; null = those of
        the data set it was trained on, made smaller (`split` of them).
    mask: a folder or an archive of masks, or one for all.
    embeddings: an .npy file [n, ...], a row a sample; null = those of the data split.
    request: a file of JSON lines, a sample a line, with any fields and paths relative to it.
    """

    classes: list[int | str] | None = None
    prompts: list[str] | str | None = None
    images: str | None = None
    low_res: str | None = None
    mask: str | None = None
    embeddings: str | None = None
    request: str | None = None

    @model_validator(mode="after")
    def _lists_are_not_empty(self) -> Self:
        if self.classes == []:
            raise ValueError("classes=[] names no class; list some, or leave classes=null to draw them from the seed")
        if self.prompts in ([], ""):
            raise ValueError("prompts names none: list some, or give a text file with one a line")
        return self
