"""Maps of classes beside images: written by the shapes, read, mirrored with their images, and refused."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difflab.config.data import DataConfig
from difflab.data.build import build_dataset, build_train_loader
from difflab.data.fields import decode_segmentation
from difflab.data.shapes import SHAPES, ShapesSource, render
from difflab.data.shapes.scene import Scene
from difflab.data.writing import write_shards
from difflab.errors import UserError


def encoded(array: np.ndarray, mode: str | None = None, kind: str = "PNG") -> bytes:
    image = Image.fromarray(array)
    if mode is not None:
        image = image.convert(mode)
    if mode == "P":
        image = Image.fromarray(array)
        image.putpalette([200, 10, 10] * 256)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


CLASSES = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.mark.parametrize("mode", [None, "P"])
def test_the_number_of_a_pixel_is_its_class_whatever_its_colour(mode: str | None) -> None:
    found = decode_segmentation(encoded(CLASSES, mode))
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), CLASSES)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded(CLASSES, "RGB"), "a PNG of mode RGB: give an 8-bit grey or palette PNG"),
        (encoded(CLASSES, kind="JPEG"), "a JPEG of mode L"),
        (b"no image", "not an image"),
    ],
)
def test_other_images_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_segmentation(data)


def source(n: int = 6) -> ShapesSource:
    return ShapesSource(resolution=32, n=n, seed=3, segmentation=True)


def test_a_map_has_the_classes_of_the_shapes_where_they_are() -> None:
    for index in range(6):
        scene, sample = source().scene(index), source().sample(index)
        classes = sample["segmentation"]
        assert classes.shape == (32, 32)
        assert set(np.unique(classes)) == {0, *(1 + SHAPES.index(obj.shape) for obj in scene.objects)}
        # Pixels of the background are those of an image without objects; others are not.
        empty = render(Scene((), scene.background), 32)
        differs = np.abs(sample["image"].astype(int) - empty).max(axis=-1)
        assert (differs[classes > 0] > 0).all()
        assert (classes[differs == 0] == 0).all()


def test_other_sets_of_shapes_keep_their_fingerprint() -> None:
    plain = ShapesSource(resolution=32, n=6, seed=3)
    assert "segmentation" not in plain.fingerprint()
    assert plain.fingerprint() != source().fingerprint()
    assert "segmentation" not in plain.sample(0)


def data_of(folder: Path, **options: object) -> DataConfig:
    write_shards(source(), folder)
    given = {"path": str(folder), "image_size": 32, "batch_size": 2, "val_split": None, "fields": ["segmentation"]}
    return DataConfig.model_validate(given | options)


def test_maps_are_mirrored_with_their_images(tmp_path: Path) -> None:
    data = data_of(tmp_path / "data", flip=True)
    stored = build_dataset(data, split="train")
    seen = set()
    for batch in itertools.islice(build_train_loader(data, seed=0, total_batches=6), 6):
        for index, image, classes in zip(batch["index"].tolist(), batch["image"], batch["segmentation"], strict=True):
            sample = stored.sample(index)
            mirrored = not torch.equal(image, sample["image"])
            seen.add(mirrored)
            assert torch.equal(image.flip(-1) if mirrored else image, sample["image"])
            assert torch.equal(classes.flip(-1) if mirrored else classes, sample["segmentation"])
    assert seen == {False, True}


def test_crops_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.crop=adm may change: set data\.crop=none"):
        build_dataset(data_of(tmp_path / "data", crop="adm"), split="train")
