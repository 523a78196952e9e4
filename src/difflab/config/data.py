"""Where the training data is and how its images are prepared."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Literal, cast, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from difflab.config.base import Config

Crop = Literal["none", "adm", "edm", "resize_short", "area"]
TrainingCrop = Literal[Crop, "adm_random", "resize_short_random", "area_random"]
"""The cropping rules: deterministic ones, and those that draw a random crop in training only."""

_FIXED: Mapping[str, Crop] = {"adm_random": "adm", "resize_short_random": "resize_short", "area_random": "area"}
"""The deterministic rule of each random one, by which evaluation crops."""

Alpha = Literal["white", "black", "drop"]
DataField = Literal["label", "caption", "json", "embedding", "boxes", "phrases", "segmentation"]
KeyRule = Literal["first_dot", "last_dot"]
_ARRAY_NAME = re.compile(r"[a-z][a-z0-9_]*")
_IN_EVERY_BATCH = ("image", "index", "key", "position", "weight")
Captions = Literal["whole", "first_line", "lines"]


def is_array_name(name: str) -> bool:
    """Whether `<key>.<name>.npy` can be a field of samples."""
    return _ARRAY_NAME.fullmatch(name) is not None and name not in _IN_EVERY_BATCH and name not in get_args(DataField)


def _known_or_array(name: str) -> str:
    if name in get_args(DataField) or is_array_name(name):
        return name
    if name in _IN_EVERY_BATCH:
        raise ValueError(f"{name!r} is in every batch: leave it out")
    raise ValueError(
        f"{name!r} is no field: they are {', '.join(get_args(DataField))}, and arrays (NAME of .NAME.npy), whose names "
        "have lower-case letters, digits and _"
    )


FieldName = Annotated[str, AfterValidator(_known_or_array)]
"""A `DataField`, or the name of an array."""


def is_pattern(split: str) -> bool:
    """Whether a split is given as a glob of shards, or as its only shard."""
    return any(character in split for character in "*?[") or split.lower().endswith(".tar")


class DataConfig(Config):
    """A directory of WebDataset shards, made by `difflab data make` or by another tool.

    path: the directory with the .tar files.
    made_with: the options of `difflab data make` that makes this data set, besides out=, as they are typed in a shell:
        `source=shapes resolution=64 'sizes=[large]'`; null = not known. Shown to those who lack the data, and nothing
        else.
    train_split: the name of the split to train on, or a glob of its shards, such as
        `imagenet-train-*.tar` or `train/*.tar`, which is then called train in other commands.
    val_split: the same for the validation split, called val in other commands; null = none.
    keys: where file names in tars made by other tools are split into the sample's key and the extension: at the
        first_dot, as WebDataset does, or at the last_dot, for names like 22.05.png.
    classes: the number of classes; null = unlabelled.
    class_names: their names, in the order of the labels; null = those in the index of the data, which a run records
        when it starts.
    image_size: pixels per side of the network's input.
    channels: 1 for grey images, 3 for colour.
    fields: the contents of a batch besides the image: label (.cls), caption (.txt), json, embedding (.npy), boxes
        and phrases, which are read from the json, segmentation (.seg.png, the class of each pixel), and the name of
        any array (NAME of .NAME.npy), as `difflab data encode` adds them. The fields that conditioners read need not
        be listed.
    captions: which part of a .txt is the caption: whole = all of it; first_line; lines = every line is a caption, of
        which training picks one per epoch, a function of (seed, epoch, image), and evaluation uses the first. The
        default keeps the whole file, as several lines may be several captions or the paragraphs of one.
    crop: how an image of another size is cropped: none = refuse it; adm = box halving, bicubic, centre crop; edm =
        centre crop, then Lanczos; resize_short = antialiased bicubic to the short side, then centre crop; area = centre
        crop, then the mean of the covered pixels; adm_random = in training, a random square of at least 80 % of the
        short side, a new one in each epoch, also for images that already have the size (ADM's noisy classifiers), and
        adm in evaluation; resize_short_random = in training, a
        random square of the image that resize_short has resized (CLIP); area_random = in training, a random square of
        at least half of the short side, resized as by area (latent diffusion's super-resolution).
    alpha: the background of transparent pixels: white, black, or drop = discard the alpha channel.
    flip: mirror half of the training images; which ones is a function of (seed, epoch, image), as is a random crop.
    batch_size: images per optimizer step, over all ranks.
    workers: data-loading processes per rank; 0 loads in the training process.
    prefetch: batches that each data-loading process keeps ready.
    max_bad_fraction: fraction of a split that may be unreadable before the run stops with a list of the bad files.
    """

    kind: Literal["shards"] = "shards"
    path: str = Field(min_length=1)
    made_with: str | None = None
    train_split: str = "train"
    val_split: str | None = "val"
    keys: KeyRule = "first_dot"
    image_size: int = Field(ge=1)
    channels: Literal[1, 3] = 3
    classes: int | None = Field(default=None, ge=1)
    class_names: list[str] | None = None
    fields: list[FieldName] = Field(default_factory=list)
    captions: Captions = "whole"
    crop: TrainingCrop = "none"
    alpha: Alpha = "white"
    flip: bool = False
    batch_size: int = Field(ge=1)
    workers: int = Field(default=0, ge=0)
    prefetch: int = Field(default=2, ge=1, le=1024)
    max_bad_fraction: float = Field(default=0.001, ge=0.0, le=1.0)

    @property
    def fixed_crop(self) -> Crop:
        """The cropping rule outside training, which is deterministic."""
        return _FIXED.get(self.crop) or cast(Crop, self.crop)

    @property
    def is_random_crop(self) -> bool:
        """Whether training crops at random."""
        return self.crop in _FIXED

    def split_called(self, name: str) -> str:
        """The split that `name` stands for in a command: train and val are the splits configured under these names."""
        given = {"train": self.train_split, "val": self.val_split}.get(name)
        return given if given is not None and is_pattern(given) else name

    @field_validator("made_with")
    @classmethod
    def _is_what_follows_data_make(cls, options: str | None) -> str | None:
        if options is None:
            return None
        try:
            keys = {word.partition("=")[0] for word in shlex.split(options)}
        except ValueError:
            raise ValueError(f"made_with={options!r} has a quote that does not end: end it") from None
        if "source" not in keys or "out" in keys:
            raise ValueError(
                f"made_with={options!r} should be options of `difflab data make`: source=... and its own, without out="
            )
        return options

    @model_validator(mode="after")
    def _fields_are_consistent(self) -> DataConfig:
        if len(set(self.fields)) != len(self.fields):
            raise ValueError(f"fields={self.fields} names a field twice; keep one of each")
        if "label" in self.fields and self.classes is None:
            raise ValueError("fields contains label but classes is null; set classes to the number of classes")
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(
                f"class_names has {len(self.class_names)} names, "
                f"classes={'null' if self.classes is None else self.classes}: "
                "name each class once, or leave class_names=null"
            )
        if self.captions != "whole" and "caption" not in self.fields and not any(map(is_array_name, self.fields)):
            raise ValueError(f"captions={self.captions} has no effect without captions: add caption to fields")
        if self.val_split == self.train_split:
            raise ValueError(
                f"val_split={self.val_split!r} is the training split; name another split, or null for none"
            )
        return self
