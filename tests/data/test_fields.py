"""Embeddings and boxes out of shards."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difflab.config.data import DataConfig
from difflab.data.bad_samples import BadSample
from difflab.data.build import build_dataset, build_train_loader
from difflab.data.fields import DECODERS, EXTENSION_OF, as_embedding, decode_embedding, stacked
from difflab.data.inspecting import inspect_data
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.data.writing import write_dataset
from difflab.errors import UserError

EVERY = ("embedding", "boxes", "phrases")


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def test_every_field_has_a_file_and_a_decoder() -> None:
    assert DECODERS.keys() | {"caption"} == EXTENSION_OF.keys()


@pytest.mark.parametrize(
    "values",
    [np.float16([[1, 2]]), np.int64([1, 2]), np.float64([0.5]), np.asfortranarray(np.ones((2, 3), np.float32))],
)
def test_an_embedding_is_any_array_of_numbers(values: np.ndarray) -> None:
    found = decode_embedding(npy(values))
    assert found.dtype == torch.float32
    assert found.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no .npy file"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }\n\0", "no .npy file"),
        (npy(np.array([{"a": 1}], dtype=object)), "no .npy file"),
        (npy(np.float32(3)), "no array of numbers"),
        (npy(np.zeros((0, 3), np.float32)), "no array of numbers"),
        (npy(np.array(["a"])), "no array of numbers"),
        (npy(np.array([True])), "no array of numbers"),
        (npy(np.array([1j])), "no array of numbers"),
        (npy(np.array([1, np.nan])), "not all of its numbers are finite"),
        (npy(np.array([1e60])), "not all of its numbers are finite"),
    ],
)
def test_what_is_no_embedding_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        decode_embedding(data)
    assert "\n" not in str(error.value)


def test_an_archive_is_no_embedding() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    with pytest.raises(ValueError, match="an archive of arrays, not one array"):
        decode_embedding(buffer.getvalue())
    with pytest.raises(ValueError, match="its lists have other lengths"):
        as_embedding([[1, 2], [3]])


def test_fields_are_stacked_where_they_are_tensors() -> None:
    assert stacked("label", [1, 2]).dtype == torch.int64
    assert stacked("embedding", [torch.zeros(3), torch.ones(3)]).shape == (2, 3)
    assert stacked("boxes", [[[0, 0, 1, 1]], []]) == [[[0, 0, 1, 1]], []]
    with pytest.raises(ValueError, match=r"^embedding has several shapes, \[2\] and \[3\]: make them one$"):
        stacked("embedding", [torch.zeros(3), torch.zeros(2)])


class Source:
    """`n` gray images with an embedding and as many boxes as their number; `changed` replaces parts of some."""

    class_names = None

    def __init__(self, n: int, changed: dict[int, dict[str, Any]] | None = None) -> None:
        self.n, self.changed = n, changed or {}

    def __len__(self) -> int:
        return self.n

    def sample(self, index: int) -> dict[str, Any]:
        boxes = [[0.0, 0.0, (i + 1) / 8, 1.0] for i in range(index % 4)]
        return {
            "image": np.full((8, 8, 3), index, np.uint8),
            "embedding": np.float32([index, 0.5, 2]),
            "json": {"boxes": boxes, "phrases": [f"thing {i}" for i in range(len(boxes))]},
            **self.changed.get(index, {}),
        }


@pytest.fixture
def write(tmp_path: Path):
    """write(n, {index: parts}) -> the folder of a data set with one split."""

    def make(n: int = 12, changed: dict[int, dict[str, Any]] | None = None) -> Path:
        write_dataset({"train": Source(n, changed)}, tmp_path / "given", shard_size=5)
        return tmp_path / "given"

    return make


def test_shards_give_embeddings_and_boxes(write) -> None:
    dataset = ShardDataset(open_data(write()), "train", fields=EVERY)
    sample = dataset.sample(6, image=False)
    assert sample["embedding"].tolist() == [6, 0.5, 2]
    assert sample["boxes"] == [[0.0, 0.0, 0.125, 1.0], [0.0, 0.0, 0.25, 1.0]]
    assert sample["phrases"] == ["thing 0", "thing 1"]
    assert dataset[0]["boxes"] == []


@pytest.mark.parametrize(
    ("parts", "field", "reason"),
    [
        ({"embedding": np.float32([1, 2])}, "embedding", r"its \.npy is \[2\], the first one of the split is \[3\]"),
        ({"embedding": np.float32([[1, 2, 3]])}, "embedding", r"is \[1, 3\], the first one"),
        ({"embedding": np.float32([1, np.inf, 0])}, "embedding", "has no valid embedding: .* numbers are finite"),
        ({"embedding": None}, "embedding", r"has no embedding \(\.npy\)"),
        ({"json": {"boxes": [[0, 0, 2, 1]]}}, "boxes", "has no valid boxes: .* outside of 0..1"),
        ({"json": {}}, "boxes", "boxes are missing"),
        ({"json": {"boxes": [[0, 0, 1, 1]]}}, "phrases", "phrases are missing"),
        ({"json": {"boxes": [[0, 0, 1, 1]], "phrases": []}}, "phrases", "there are 1 boxes and 0 phrases"),
        ({"json": None}, "boxes", r"has no boxes \(\.json\)"),
    ],
)
def test_a_bad_field_is_a_bad_sample(write, parts: dict[str, Any], field: Any, reason: str) -> None:
    folder = write(changed={7: parts})
    dataset = ShardDataset(open_data(folder), "train", fields=(field,))
    with pytest.raises(BadSample, match=reason) as error:
        dataset[7]
    assert "train-000001.tar/00000007" in str(error.value)
    assert "\n" not in str(error.value)
    dataset[6]


@pytest.mark.parametrize(
    "parts",
    [
        {"embedding": np.float32([1, 2])},
        {"embedding": np.float32([1, np.inf, 0])},
        {"json": {"boxes": [[0, 0, 2, 1]]}},
        {"json": {}},
        {"json": {"boxes": [[0, 0, 1, 1]], "phrases": []}},
    ],
)
def test_what_is_bad_is_found_by_inspection(write, parts: dict[str, Any]) -> None:
    (problem,) = inspect_data(write(changed={7: parts}), decode=None).problems
    assert "train-000001.tar/00000007" in problem


def test_the_shape_is_the_first_ones_whichever_is_read_first(write) -> None:
    folder = write(changed={0: {"embedding": np.float32([1, 2])}, 1: {"embedding": np.float32([1, 2])}})
    dataset = ShardDataset(open_data(folder), "train", fields=("embedding",))
    with pytest.raises(BadSample, match=r"its \.npy is \[3\], the first one of the split is \[2\]"):
        dataset[5]
    assert dataset[1]["embedding"].shape == (2,)


def test_a_first_sample_without_embedding_is_passed_over(write) -> None:
    dataset = ShardDataset(open_data(write(changed={0: {"embedding": None}})), "train", fields=("embedding",))
    assert dataset[5]["embedding"].shape == (3,)


def test_whole_data_is_inspected_with_its_fields(write) -> None:
    report = inspect_data(write(), decode=None)
    assert report.problems == []
    assert report.splits[0].members["npy"] == 12


def test_json_that_never_had_boxes_is_no_problem(write) -> None:
    plain = {index: {"json": {"number": index}} for index in range(12)}
    assert inspect_data(write(changed=plain), decode=None).problems == []


# -- batches ----------------------------------------------------------------------------------------------------------


def config(folder: Path, **changes: Any) -> DataConfig:
    given = {"path": str(folder), "val_split": None, "image_size": 8, "batch_size": 6, "fields": list(EVERY)}
    return DataConfig.model_validate({**given, **changes})


def test_a_batch_has_them(write) -> None:
    (batch,) = list(build_train_loader(config(write(), batch_size=12), seed=0, total_batches=1))
    assert batch["embedding"].shape == (12, 3)
    assert batch["embedding"][:, 0].tolist() == batch["index"].tolist()
    assert [len(boxes) for boxes in batch["boxes"]] == [index % 4 for index in batch["index"].tolist()]
    assert [len(phrases) for phrases in batch["phrases"]] == [len(boxes) for boxes in batch["boxes"]]


def test_mirrored_images_have_mirrored_boxes(tmp_path: Path) -> None:
    class Left(Source):
        def sample(self, index: int) -> dict[str, Any]:
            image = np.zeros((8, 8, 3), np.uint8)
            image[:, :2] = 255
            return {"image": image, "json": {"boxes": [[0, 0, 0.25, 1]]}}

    write_dataset({"train": Left(16)}, tmp_path / "left")
    data = config(tmp_path / "left", flip=True, fields=["boxes"], batch_size=16)
    (batch,) = list(build_train_loader(data, seed=0, total_batches=1))
    mirrored = [bool(image[0, 0, 0] == 0) for image in batch["image"]]
    assert 0 < sum(mirrored) < 16
    for image_is_mirrored, boxes in zip(mirrored, batch["boxes"], strict=True):
        assert boxes == [[0.75, 0, 1, 1] if image_is_mirrored else [0, 0, 0.25, 1]]


@pytest.mark.parametrize("crop", ["adm", "edm", "resize_short", "adm_random"])
def test_boxes_of_images_that_are_cut_are_refused(write, crop: str) -> None:
    with pytest.raises(UserError, match=f"of which data.crop={crop} may cut a part: set data.crop=none"):
        build_dataset(config(write(), crop=crop), split="train")


def test_the_shapes_have_boxes_and_phrases(tiny_shapes: Path) -> None:
    dataset = ShardDataset(open_data(tiny_shapes), "train", fields=("boxes", "phrases", "json"))
    sample = dataset[3]
    assert len(sample["boxes"]) == len(sample["phrases"]) > 0
    assert sample["boxes"] == json.loads(json.dumps(sample["json"]["boxes"]))
