import json

import numpy as np
import pytest

from difflab.data.index import DataIndex, ShardEntry, SplitEntry, read_index, write_index
from difflab.errors import UserError
from difflab.files import write_shared


def some_index(name="train-000000.tar"):
    shard = ShardEntry(name=name, samples=2, bytes=100, sha256=None, members={"png": 2})
    return DataIndex(image_size=8, classes=["a", "b"], splits={"train": SplitEntry(shards=[shard])})


def test_an_index_is_read_back_as_it_was_written(tmp_path):
    write_index(tmp_path, some_index())
    assert read_index(tmp_path / "index.json") == some_index()
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]


@pytest.mark.parametrize("name", ["../other.tar", "/etc/passwd", "a/b.tar", "..", "a\\b.tar", ""])
def test_an_index_cannot_point_out_of_its_directory(tmp_path, name):
    content = json.loads(some_index().model_dump_json())
    content["splits"]["train"]["shards"][0]["name"] = name
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"index.json is not a valid index: .*must be a plain file name"):
        read_index(tmp_path / "index.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": "difflab-shards", "version": 99, "splits": {}}', "format version 99.*update it"),
        ("{half", "not valid JSON"),
        ("[]", "not a valid index"),
        ('{"format": "other", "splits": {}}', "not a valid index: format"),
    ],
)
def test_a_foreign_or_damaged_index_is_one_line(tmp_path, content, message):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_index(tmp_path / "index.json")
    assert "\n" not in str(caught.value)


def test_a_split_that_is_not_there_names_the_others(open_tiny):
    with pytest.raises(UserError, match=r"no split 'test' \(it has: train, val\)"):
        open_tiny.split("test")


def test_offset_tables_that_are_missing_or_foreign_are_named(open_tiny, tiny_data):
    first, second, _ = open_tiny.split("train").shards
    (tiny_data / "train-000000.offsets.npy").write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"train-000000.offsets.npy is missing or damaged"):
        open_tiny.offsets(first)
    np.save(tiny_data / "train-000001.offsets.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"does not fit train-000001.tar"):
        open_tiny.offsets(second)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    write_shared(tmp_path / "a", b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_shared(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 200_000, "not valid JSON"),
        ('{"splits": ' + "9" * 5000 + "}", "not valid JSON"),
        (b"\xff\xfe{", "not valid JSON"),
        (
            '{"format": "difflab-shards", "splits": {"train": {"shards": [{"name": "a.tar"}]}}}',
            "samples: Field required",
        ),
        ('{"shards": [], "version": 2}', "another tool wrote it"),
    ],
)
def test_a_mad_index_is_one_line(tmp_path, content, message):
    (tmp_path / "index.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        read_index(tmp_path / "index.json")
    assert "\n" not in str(caught.value)


def test_an_index_of_absurd_size_is_not_read(tmp_path):
    with (tmp_path / "index.json").open("wb") as file:
        file.truncate(200 << 20)
    with pytest.raises(UserError, match="no index of shards: it has 209715200 bytes"):
        read_index(tmp_path / "index.json")


def written_with(tmp_path, **changes):
    content = json.loads(some_index().model_dump_json())
    content["splits"]["train"]["shards"][0] |= changes
    (tmp_path / "index.json").write_text(json.dumps(content))
    return tmp_path / "index.json"


@pytest.mark.parametrize("folder", ["..", "/etc", "train/..", "a\\b", "a//b", "."])
def test_a_folder_of_a_shard_stays_below_the_directory(tmp_path, folder):
    with pytest.raises(UserError, match="must be a path below the data directory"):
        read_index(written_with(tmp_path, folder=folder))
    assert read_index(written_with(tmp_path, folder="train/a")).shards[0].path == "train/a/train-000000.tar"


@pytest.mark.parametrize(
    "changes", [{"samples": -1}, {"samples": 10**30}, {"samples": 2**40 + 1}, {"bytes": -1}, {"bytes": 10**19}]
)
def test_absurd_counts_are_refused(tmp_path, changes):
    with pytest.raises(UserError, match=f"not a valid index: splits.train.shards.0.{next(iter(changes))}"):
        read_index(written_with(tmp_path, **changes))


@pytest.mark.parametrize("second", ["train", "val"])
def test_a_shard_that_is_listed_twice_is_refused(tmp_path, second):
    content = json.loads(some_index().model_dump_json())
    shard = content["splits"]["train"]["shards"][0]
    content["splits"].setdefault(second, {"shards": []})["shards"].append(shard)
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=rf"index: shard train-000000.tar is listed 2 times \(splits: train, {second}\)"
    ):
        read_index(tmp_path / "index.json")


def test_what_the_machine_refuses_is_no_damage_of_the_index(tmp_path, monkeypatch):
    written_with(tmp_path)

    def refused(path):
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", refused)
    with pytest.raises(OSError, match=r"Too many open files: .*index.json"):
        read_index(tmp_path / "index.json")
