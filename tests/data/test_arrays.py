"""Arrays of samples: `<key>.<name>.npy`, written and read with their dtype, also in other people's tars."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difflab.config.data import DataConfig
from difflab.config.validate import validate
from difflab.data.arrays import array_names, decode_array, encode_array
from difflab.data.bad_samples import BadSample
from difflab.data.build import build_dataset, build_train_loader
from difflab.errors import UserError


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", "<i8", "u1", "?"])
def test_an_array_is_what_numpy_writes_and_keeps_its_dtype(dtype: str) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    data = encode_array(values)
    assert data == npy(values)
    found = decode_array(data)
    assert found.numpy().dtype == np.dtype(dtype)
    assert np.array_equal(found.numpy(), values)


def test_other_byte_orders_and_layouts_are_read() -> None:
    values = np.arange(6, dtype=">f4").reshape(2, 3)
    assert decode_array(npy(np.asfortranarray(values))).tolist() == values.tolist()
    assert decode_array(npy(np.float32(3))).shape == ()


def test_every_file_has_its_own_array_of_which_it_is_no_part() -> None:
    first, second = (encode_array(np.full((2, 3), value, np.float32)) for value in (1, 2))
    arrays = [decode_array(data) for data in (first, second, first)]
    arrays[0] += 5
    assert [array.unique().tolist() for array in arrays] == [[6.0], [2.0], [1.0]]


def test_what_stands_behind_an_array_is_not_read() -> None:
    assert decode_array(encode_array(np.arange(3)) + b"more").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode_array(np.arange(3))[:-1], "no .npy file"),
        (encode_array(np.arange(3)).replace(b"(3,)", b"(-3)"), "no .npy file"),
        (encode_array(np.arange(3)).replace(b"(3,)", b"(3,("), "no .npy file"),
        (encode_array(np.arange(3))[:20], "no .npy file"),
        (npy(np.zeros(3, "S0")), "no array of numbers"),
        (b"no array", "no .npy file"),
        (npy(np.array([{"a": 1}], dtype=object)), "no .npy file"),
        (npy(np.zeros((0, 3))), "no array of numbers"),
        (npy(np.array(["a"])), "no array of numbers"),
        (npy(np.array([np.inf], np.float16)), "not all of its numbers are finite"),
    ],
)
def test_what_is_no_array_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        decode_array(data)
    assert "\n" not in str(error.value)


def test_names_are_those_of_extensions_that_can_be_fields() -> None:
    extensions = ["npy", "png", "image_embedding.npy", "label.npy", "index.npy", "a.b.npy", "latent.npy", "9.npy"]
    assert array_names(extensions) == ["image_embedding", "latent"]


@pytest.fixture
def theirs(tmp_path: Path, write_tar: Any, encoded: Any) -> Path:
    """Another tool's tars, with two arrays beside each image; the last one lacks the second."""
    members: dict[str, bytes] = {}
    for i in range(6):
        members[f"{i}.png"] = encoded()
        members[f"{i}.latent.npy"] = npy(np.full((2, 3), i, np.float16))
        if i < 5:
            members[f"{i}.Odd.npy"] = npy(np.arange(1 + i % 2))
    write_tar(tmp_path / "theirs/0.tar", members)
    return tmp_path / "theirs"


def config(path: Path, *fields: str, **options: Any) -> DataConfig:
    values = {"path": str(path), "image_size": 8, "batch_size": 2, "fields": list(fields), "max_bad_fraction": 1.0}
    return validate(DataConfig, {**values, **options})


def test_a_batch_has_arrays_of_tars_made_elsewhere(theirs: Path) -> None:
    per_rank = [
        list(build_train_loader(config(theirs, "latent"), seed=1, rank=rank, world_size=2, total_batches=3))
        for rank in range(2)
    ]
    alone = list(build_train_loader(config(theirs, "latent", workers=1), seed=1, total_batches=3))
    for number, batch in enumerate(alone):
        assert batch["latent"].dtype == torch.float16
        assert batch["latent"][:, 0, 0].tolist() == batch["index"].tolist()
        together = torch.cat([batches[number]["latent"] for batches in per_rank])
        assert torch.equal(together, batch["latent"])


def test_arrays_of_other_shapes_and_missing_ones_are_bad_samples(theirs: Path) -> None:
    dataset = build_dataset(config(theirs, "odd"), split="train")
    assert dataset[2]["odd"].tolist() == [0]
    with pytest.raises(BadSample, match=r"its .odd.npy is \[2\], the first one of the split is \[1\]"):
        dataset[1]
    with pytest.raises(BadSample, match=r"has no odd \(.odd.npy\)"):
        dataset[5]


def test_names_that_are_no_fields_are_one_line(theirs: Path) -> None:
    with pytest.raises(UserError, match=r"cannot give lable: .* has the arrays latent, odd \(.NAME.npy files\)"):
        build_dataset(config(theirs, "lable"), split="train")
    with pytest.raises(UserError, match=r"fields.0: 'weight' is in every batch: leave it out"):
        config(theirs, "weight")
    with pytest.raises(UserError, match=r"'../x' is no field: they are label, caption"):
        config(theirs, "../x")
