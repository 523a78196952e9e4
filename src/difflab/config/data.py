"""Where the training data lies and how its images reach the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from pydantic import Field, model_validator

from difflab.config.base import Config

Crop = Literal["none", "adm", "edm", "resize_short"]
TrainingCrop = Literal[Crop, "adm_random", "resize_short_random"]
"""The rules of a data set: the fixed ones, and those that draw a cut for training alone."""

_FIXED: Mapping[str, Crop] = {"adm_random": "adm", "resize_short_random": "resize_short"}
"""What images are cut by where nothing is drawn."""

Alpha = Literal["white", "black", "drop"]
DataField = Literal["label", "caption", "json", "embedding", "boxes", "phrases"]
KeyRule = Literal["first_dot", "last_dot"]
Captions = Literal["whole", "first_line", "lines"]


def is_pattern(split: str) -> bool:
    """Whether a split is given as a glob of shards, or as the one shard that makes it."""
    return any(character in split for character in "*?[") or split.lower().endswith(".tar")


class DataConfig(Config):
    """A directory of WebDataset shards, made by `difflab data make` or by another tool.

    path: the directory with the .tar files.
    train_split: the name of the split to train on, or a glob of the shards that make it, such as
        `imagenet-train-*.tar` or `train/*.tar`, which other commands then call train.
    val_split: the same of the validation split, which other commands call val; null = there is none.
    keys: where the name of a file in other people's tars is cut into the sample's key and the extension: at its
        first_dot, as WebDataset does, or at its last_dot, for names like 22.05.png.
    classes: the number of classes (null: unlabelled).
    class_names: what they are called, in the order of the labels; null = what the index of the data says, which a run
        takes over when it starts.
    image_size: pixels per side of what the network gets.
    channels: 1 of grey images, 3 of coloured ones.
    fields: what a batch carries besides the image: label (.cls), caption (.txt), json, embedding (.npy), and boxes and
        phrases, which stand in the json. What the conditioners read is there without being named.
    captions: which part of a .txt is the caption: whole = all of it; first_line; lines = each line is one, and training
        draws another in each epoch, a function of (seed, epoch, image), while what is evaluated takes the first. The
        default keeps what the file says: several lines may be several captions or the paragraphs of one.
    crop: how an image of another size is cut: none = refuse it; adm = box halving, bicubic, centre crop; edm = centre
        crop, then Lanczos; resize_short = antialiased bicubic to the short side, then centre crop; adm_random = for
        training, a drawn square of at least 80 % of the short side, another in each epoch, also of images that have
        the size already (ADM's noisy classifiers), while what is evaluated is cut by adm; resize_short_random = for
        training, a drawn square of the image as resize_short resizes it (CLIP).
    alpha: what transparent pixels are laid on: white, black, or drop = forget the alpha channel.
    flip: mirror half of the training images; which ones is a function of (seed, epoch, image), as is a drawn cut.
    batch_size: images of one optimiser step over all ranks.
    workers: reading processes per rank; 0 reads in the training process.
    prefetch: batches that each reading process keeps ready.
    max_bad_fraction: share of a split that may be unreadable before the run stops with the list.
    """

    kind: Literal["shards"] = "shards"
    path: str = Field(min_length=1)
    train_split: str = "train"
    val_split: str | None = "val"
    keys: KeyRule = "first_dot"
    image_size: int = Field(ge=1)
    channels: Literal[1, 3] = 3
    classes: int | None = Field(default=None, ge=1)
    class_names: list[str] | None = None
    fields: list[DataField] = Field(default_factory=list)
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
        """How images are cut outside training, where nothing is drawn."""
        return _FIXED.get(self.crop) or cast(Crop, self.crop)

    @property
    def is_random_crop(self) -> bool:
        """Whether training draws where an image is cut."""
        return self.crop in _FIXED

    def split_called(self, name: str) -> str:
        """What a command means that asks for the split `name`: train and val are the globs given for them."""
        given = {"train": self.train_split, "val": self.val_split}.get(name)
        return given if given is not None and is_pattern(given) else name

    @model_validator(mode="after")
    def _fields_are_consistent(self) -> DataConfig:
        if len(set(self.fields)) != len(self.fields):
            raise ValueError(f"fields={self.fields} names a field twice; keep one of each")
        if "label" in self.fields and self.classes is None:
            raise ValueError("fields asks for label but classes is null; set classes to the number of classes")
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(
                f"class_names are {len(self.class_names)}, classes={'null' if self.classes is None else self.classes}: "
                "name each class once, or leave class_names=null"
            )
        if self.captions != "whole" and "caption" not in self.fields:
            raise ValueError(f"captions={self.captions} is of no use without captions: add caption to fields")
        if self.val_split == self.train_split:
            raise ValueError(
                f"val_split={self.val_split!r} is the training split; name another split, or null for none"
            )
        return self
