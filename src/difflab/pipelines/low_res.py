"""Where an upsampler's low-resolution images come from: an archive, a folder, or a data set made smaller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from difflab.config.conditioning import LowResConditionerConfig
from difflab.config.data import DataConfig
from difflab.config.model import ModelConfig
from difflab.errors import UserError
from difflab.types import Batch

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class LowRes(Protocol):
    """Numbered images: sample i gets image i, and from the first one again where there are fewer.

    A call gives the entries of a batch: `low_res` (uint8 [B, C, size, size]), or `image` (uint8, full size) where the
    conditioner is to make it smaller as it did in training. name says what they are, for the record.
    """

    name: str

    def __call__(self, indices: Sequence[int]) -> Batch: ...

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        """Their classes, where they are known."""
        ...


class ArchiveLowRes:
    """`arr_0` uint8 [n, H, W, C] and, where it is there, `arr_1` [n] of an .npz file (`difflab sample`, ADM)."""

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as archive:
                images = archive["arr_0"]
                classes = archive["arr_1"] if "arr_1" in archive.files else None
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"low_res={path} is no archive of images (arr_0, uint8 [n, H, W, C]): {error}") from error
        if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
            raise UserError(f"low_res={path}: arr_0 is {images.dtype} {list(images.shape)}, not uint8 [n, H, W, C]")
        self.name = path.name
        self.size = images.shape[1]
        self._images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self._classes = None if classes is None else [int(label) for label in classes]

    def __call__(self, indices: Sequence[int]) -> Batch:
        return {"low_res": self._images[[i % len(self._images) for i in indices]]}

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        return None if self._classes is None else [self._classes[i % len(self._classes)] for i in indices]


class FolderLowRes:
    """The images of a folder in the order of their names."""

    def __init__(self, path: Path, channels: int) -> None:
        self.name = path.name
        self._paths = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        self._mode = "L" if channels == 1 else "RGB"
        if not self._paths:
            raise UserError(f"low_res={path} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        self.size = self._read(0).shape[-1]

    def __call__(self, indices: Sequence[int]) -> Batch:
        return {"low_res": torch.stack([self._read(i % len(self._paths)) for i in indices])}

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        return None

    def _read(self, number: int) -> Tensor:
        from PIL import Image, UnidentifiedImageError

        path = self._paths[number]
        try:
            with Image.open(path) as image:
                pixels = torch.from_numpy(np.array(image.convert(self._mode)))
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"{path} cannot be read as an image: {error}") from error
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


class DataLowRes:
    """The images of a split, at full size; the conditioner makes them smaller as it did in training."""

    def __init__(self, data: DataConfig, split: str) -> None:
        from difflab.data.build import build_dataset

        fields = ["label"] if data.classes is not None else []
        self.name = f"{Path(data.path).name}/{split}"
        self._dataset = build_dataset(data.model_copy(update={"fields": fields}), split=split)
        self._labelled = bool(fields)

    def __call__(self, indices: Sequence[int]) -> Batch:
        return {"image": torch.stack([self._sample(i)["image"] for i in indices])}

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        return [self._sample(i)["label"] for i in indices] if self._labelled else None

    def _sample(self, index: int) -> Batch:
        from difflab.data.bad_samples import BadSample

        try:
            return self._dataset[index % len(self._dataset)]
        except BadSample as error:
            raise UserError(f"low_res: {self.name}: {error}; mend the data set, or give low_res=...") from error


def low_res_of(model: ModelConfig) -> LowResConditionerConfig | None:
    """The conditioner that makes a model an upsampler, or None."""
    return next((c for c in model.conditioning.values() if isinstance(c, LowResConditionerConfig)), None)


def open_low_res(path: str | None, model: ModelConfig, data: DataConfig | None, split: str) -> LowRes | None:
    """What the upsampler `model` enlarges; None for any other model.

    path: an archive or a folder; None takes `split` of `data`.
    Raises UserError where there is nothing to enlarge, where it has another size, and for a path that nobody reads.
    """
    conditioner = low_res_of(model)
    if conditioner is None:
        if path is not None:
            raise UserError(f"low_res={path}: this model enlarges nothing; leave low_res out")
        return None
    if path is None:
        if data is None:
            raise UserError(
                f"this model enlarges {conditioner.size}x{conditioner.size} images: give an archive or a folder of "
                "them, as in low_res=samples.npz"
            )
        return DataLowRes(data, split)
    where = Path(path)
    if not where.exists():
        raise UserError(f"low_res={path} does not exist: give an archive (.npz) or a folder of images")
    source = FolderLowRes(where, model.channels) if where.is_dir() else ArchiveLowRes(where)
    if source.size != conditioner.size:
        raise UserError(
            f"low_res={path} holds {source.size}x{source.size} images; this model enlarges "
            f"{conditioner.size}x{conditioner.size} to {model.image_size}x{model.image_size}"
        )
    return source
