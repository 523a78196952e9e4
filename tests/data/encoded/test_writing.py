"""A shard written again with fields: the files of its samples as they were, and arrays beside them."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difflab.data.arrays import read_array
from difflab.data.directory import DataDirectory
from difflab.data.encoded.planning import EncodePlan
from difflab.data.encoded.reading import ReadRows, RowsReader, read_ahead
from difflab.data.encoded.writing import FieldEncoder, write_shard
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.data.tar_scan import scan_tar
from difflab.data.unfinished import FinishedShard
from difflab.data.writing import write_shards
from difflab.errors import UserError
from difflab.files import sha256_of

EncoderOf = Callable[..., Any]


def files_of(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def written(
    directory: DataDirectory, out: Path, encoder: Any, *, batch_size: int = 4, workers: int = 0, **how: Any
) -> FinishedShard:
    """The first shard of `train`, written into `out`."""
    how = {"dtype": "float16", "captions": "whole", **how}
    plan = EncodePlan(directory, ["train"], encoder, how["dtype"], how["captions"], batch_size)
    shard = plan.shards()[0]
    reader = RowsReader(directory, plan.splits, encoder, plan.captions)
    reads = read_ahead(reader, shard.rows(batch_size), workers)
    out.mkdir(exist_ok=True)
    encode = FieldEncoder(encoder, batch_size=batch_size, **how)
    return write_shard(out / shard.name, out / shard.name, "train", shard.entry, reads, encode)


def test_the_files_of_a_sample_stay_and_its_arrays_join_them(
    open_tiny: DataDirectory, tmp_path: Path, encoder_of: EncoderOf
) -> None:
    encoder, tellable = encoder_of(captions=True)
    made = written(open_tiny, tmp_path / "out", encoder)
    before, after = (files_of(folder / "train-000000.tar") for folder in (open_tiny.root, tmp_path / "out"))
    assert {name: after[name] for name in before} == before
    added = after.keys() - before.keys()
    assert added == {f"{i:08d}.{field}.npy" for i in range(10) for field in ("mean", "first", "first_mask")}
    assert tellable.sizes == [4, 4, 4, 4, 2, 2], "batches of images and of captions, those of this shard alone"
    dataset = ShardDataset(open_tiny, "train")
    for i in range(10):
        sample = dataset[i]
        expected = (sample["image"].float().mean(dim=(1, 2)) / 255).half().numpy()
        assert np.array_equal(read_array(after[f"{i:08d}.mean.npy"]), expected)
        assert read_array(after[f"{i:08d}.first.npy"]).tolist() == encoder.captions.tokenizer.encode("picture")[1:2]
        mask = read_array(after[f"{i:08d}.first_mask.npy"])
        assert (mask.dtype, mask.tolist()) == (np.dtype(bool), [True, True, True])
    assert {name: field.shape for name, field in made.fields.items()} == {"mean": [3], "first": [1], "first_mask": [3]}
    assert [made.fields[name].dtype for name in ("mean", "first_mask")] == ["float16", "bool"]
    assert made.fields["mean"].settings == {"model": "tellable"}
    assert (made.sizes, made.channels, made.bad) == ([[8, 8]], 3, [])
    scan, entry = scan_tar(tmp_path / "out/train-000000.tar"), made.entry
    assert (entry.members, entry.samples, entry.largest_label) == (scan.members, 10, 1)
    assert entry.sha256 == sha256_of(tmp_path / "out/train-000000.tar")


def test_workers_change_nothing(open_tiny: DataDirectory, tmp_path: Path, encoder_of: EncoderOf) -> None:
    entries = [
        written(open_tiny, tmp_path / f"w{workers}", encoder_of(captions=True)[0], workers=workers).entry
        for workers in (0, 2)
    ]
    assert entries[0] == entries[1]


def test_every_line_has_a_row(tmp_path: Path, tiny_source: Any, encoder_of: EncoderOf) -> None:
    class Lines(tiny_source):
        def sample(self, index: int) -> dict[str, Any]:
            return {**super().sample(index), "caption": "\n".join("abc"[: 1 + index % 3])}

    write_shards(Lines(7), tmp_path / "lines")
    encoder, tellable = encoder_of(images=False, captions=True)
    made = written(open_data(tmp_path / "lines"), tmp_path / "out", encoder, captions="lines", batch_size=4)
    after = files_of(tmp_path / "out/train-000000.tar")
    found = [read_array(after[f"{i:08d}.first.npy"]).tolist() for i in range(7)]
    a = found[0][0][0]
    assert found == [[[a + j] for j in range(1 + i % 3)] for i in range(7)]
    assert made.fields["first"].shape == [1]
    assert made.fields["first"].has_rows
    assert tellable.sizes == [4, 3, 4, 2], "of the captions of 4 and of 3 samples, no more than batch_size"
    first = written(open_data(tmp_path / "lines"), tmp_path / "first", encoder, captions="first_line")
    assert read_array(files_of(tmp_path / "first/train-000000.tar")["00000002.first.npy"]).tolist() == [a]
    assert not first.fields["first"].has_rows


def test_numbers_that_a_dtype_cannot_hold_are_refused(
    open_tiny: DataDirectory, tmp_path: Path, encoder_of: EncoderOf
) -> None:
    with pytest.raises(UserError, match="mean is not finite in float16: give dtype=float32"):
        written(open_tiny, tmp_path / "out", encoder_of(scale=1e6)[0])
    assert not list((tmp_path / "out").iterdir())
    made = written(open_tiny, tmp_path / "out", encoder_of(scale=1e6)[0], dtype="float32")
    assert made.fields["mean"].dtype == "float32"
    with pytest.raises(UserError, match="mean is not finite: give precision=32-true"):
        written(open_tiny, tmp_path / "other", encoder_of(scale=float("nan"))[0], dtype="float32")


def test_bad_samples_are_named_and_left_out(
    tmp_path: Path, write_tar: Any, encoded: Any, encoder_of: EncoderOf
) -> None:
    png = encoded()
    members = {f"{i}.png": png for i in range(6)} | {f"{i}.txt": b"a" for i in range(6)}
    members |= {"1.png": png[:60], "2.png": encoded(size=(9, 9)), "3.txt": b" \n", "4.txt": b"far too long a caption"}
    del members["5.txt"]
    write_tar(tmp_path / "theirs/0.tar", members)
    made = written(open_data(tmp_path / "theirs"), tmp_path / "out", encoder_of(captions=True)[0])
    assert (made.entry.samples, len(made.bad)) == (1, 5)
    reasons = [
        "0.tar/1: the .png is damaged",
        "0.tar/2: the image is 9x9",
        "0.tar/3: its caption is empty",
        "0.tar/4: the text 'far too long a caption' has .* tokens, more than .*, or give too_long=truncate",
        "0.tar/5: has no caption",
    ]
    assert all(re.match(reason, line) for reason, line in zip(reasons, made.bad, strict=True)), made.bad
    write_tar(tmp_path / "none/0.tar", {"1.png": png[:60]})
    with pytest.raises(UserError, match=r"no sample of shard 0.tar can be encoded, as 0.tar/1: "):
        written(open_data(tmp_path / "none"), tmp_path / "out2", encoder_of()[0])


def test_names_of_other_tools_are_kept(tmp_path: Path, write_tar: Any, encoded: Any, encoder_of: EncoderOf) -> None:
    keys = ["photos/Zürich", "a" * 150, "7"]
    write_tar(tmp_path / "theirs/0.tar", {f"{key}.png": encoded() for key in keys}, fmt=tarfile.PAX_FORMAT)
    made = written(open_data(tmp_path / "theirs"), tmp_path / "out", encoder_of()[0])
    tar = tmp_path / "out/train-000000.tar"
    assert files_of(tar).keys() == {f"{key}.{end}" for key in keys for end in ("png", "mean.npy")}
    table = np.load(tmp_path / "out/train-000000.offsets.npy")
    scanned = scan_tar(tar).checked_table
    assert made.entry.samples == 3
    for name in table.dtype.names:
        assert table[name].tolist() == scanned[name].tolist()


def test_an_error_leaves_no_shard(open_tiny: DataDirectory, tmp_path: Path, encoder_of: EncoderOf) -> None:
    encoder, tellable = encoder_of()

    def failing(read: ReadRows) -> dict[str, torch.Tensor]:
        raise KeyboardInterrupt

    encode = FieldEncoder(encoder, dtype="float16", batch_size=4, captions="whole")
    shard = EncodePlan(open_tiny, ["train"], encoder, "float16", "whole", 4).shards()[0]
    reader = RowsReader(open_tiny, ["train"], encoder, "whole")
    target = tmp_path / "hidden.tar"
    with pytest.raises(KeyboardInterrupt):
        write_shard(target, target, "train", shard.entry, map(failing, read_ahead(reader, shard.rows(4), 0)), encode)
    assert not target.exists()
    assert not tellable.sizes
