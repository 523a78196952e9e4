"""The arrays of a data set, of difflab and of other tools."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from difflab.data.directory import DataDirectory
from difflab.data.encoded.field import EncodedField
from difflab.data.encoded.listing import ArrayFacts, arrays_of
from difflab.data.inspecting import inspect_data
from difflab.data.opening import open_data


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def test_arrays_of_other_tools_are_read_once(tmp_path: Path, write_tar: Any, encoded: Any) -> None:
    members = {f"{i}.png": encoded() for i in range(3)}
    members |= {"0.a.npy": b"no array", "1.a.npy": npy(np.zeros((2, 3), np.float16)), "2.b.npy": b"", "0.npy": b""}
    write_tar(tmp_path / "theirs/0.tar", members)
    found = arrays_of(open_data(tmp_path / "theirs"))
    assert found == [ArrayFacts("a", [2, 3], "float16"), ArrayFacts("b", None, None)]
    assert [one.in_words() for one in found] == ["a [2, 3] float16", "b"]
    report = inspect_data(tmp_path / "theirs")
    assert report.arrays == found
    assert report.as_dict()["arrays"][0]["shape"] == [2, 3]


def test_encoders_are_named(open_tiny: DataDirectory) -> None:
    entry = EncodedField(encoder="clip", sha256="ab" * 32, dtype="float16", shape=[4], captions="lines")
    shards = [
        shard.model_copy(update={"members": {**shard.members, "caption_embedding.npy": shard.samples}})
        for shard in open_tiny.index.splits["train"].shards
    ]
    train = open_tiny.index.splits["train"].model_copy(update={"shards": shards})
    index = open_tiny.index.model_copy(update={"splits": {"train": train}, "fields": {"caption_embedding": entry}})
    (found,) = arrays_of(DataDirectory(open_tiny.root, open_tiny.tables, index))
    assert found.in_words() == "caption_embedding [4] float16 a line, clip abababab"
