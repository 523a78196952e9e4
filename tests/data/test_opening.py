import json
from pathlib import Path

import pytest
import webdataset

from difflab.data import opening
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.errors import UserError


@pytest.fixture
def plain(tmp_path, write_tar, encoded):
    """Two shards as another tool leaves them, without an index."""
    image = encoded()
    write_tar(tmp_path / "plain/00000.tar", {"a.png": image, "a.txt": b"first", "b.png": image, "b.txt": b"second"})
    write_tar(tmp_path / "plain/00001.tar", {"c.png": image, "c.txt": b"third"})
    return tmp_path / "plain"


def refuse_to_scan(path):
    raise AssertionError(f"{path} was scanned again")


def test_plain_shards_are_indexed_once_beside_them(plain, monkeypatch):
    directory = open_data(plain)
    assert directory.index.origin == "indexed"
    assert directory.split("train").samples == 3
    monkeypatch.setattr(opening, "scan_tar", refuse_to_scan)
    dataset = ShardDataset(open_data(plain), "train", fields=("caption",))
    assert [(dataset[i]["key"], dataset[i]["caption"]) for i in range(3)] == [
        ("a", "first"),
        ("b", "second"),
        ("c", "third"),
    ]


def test_where_shards_lie_read_only_the_index_goes_under_the_cache_root(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    before = sorted(plain.iterdir())
    assert len(ShardDataset(open_data(plain), "train")) == 3
    assert sorted(plain.iterdir()) == before
    assert list((tmp_path / "cache" / "data-index").glob("*/index.json"))
    monkeypatch.setattr(opening, "scan_tar", refuse_to_scan)
    assert ShardDataset(open_data(plain), "train")[2]["key"] == "c"


def test_shards_that_came_later_are_found(plain, write_tar, encoded):
    open_data(plain)
    write_tar(plain / "00002.tar", {"d.png": encoded()})
    assert open_data(plain).split("train").samples == 4


def test_shard_names_say_the_split(tmp_path, write_tar, encoded):
    for name in ("train-0.tar", "valid-0.tar", "validation-1.tar", "test-0.tar", "cc3m-train-0.tar"):
        write_tar(tmp_path / "d" / name, {f"{name[:5]}.png": encoded()})
    splits = open_data(tmp_path / "d").index.splits
    assert {name: entry.samples for name, entry in splits.items()} == {"train": 2, "val": 2, "test": 1}


def test_keys_that_shards_repeat_get_the_shards_name(tmp_path, write_tar, encoded):
    for shard in ("00", "01"):
        write_tar(tmp_path / "d" / f"{shard}.tar", {"0001.png": encoded()})
    directory = open_data(tmp_path / "d")
    assert directory.index.repeated_keys == 1
    dataset = ShardDataset(directory, "train")
    assert [dataset.key(0), dataset.key(1)] == ["00/0001", "01/0001"]


def test_shards_of_webdatasets_own_writer_are_read(tmp_path, encoded):
    (tmp_path / "w").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "w/%05d.tar"), maxcount=3, verbose=0) as writer:
        for i in range(7):
            writer.write({"__key__": f"s{i}", "jpg": encoded(fmt="JPEG"), "cls": i, "txt": f"n {i}", "json": {"i": i}})
    dataset = ShardDataset(open_data(tmp_path / "w"), "train", fields=("label", "caption", "json"))
    sample = dataset[5]
    assert (sample["label"], sample["caption"], sample["json"], sample["key"]) == (5, "n 5", {"i": 5}, "s5")


def test_img2datasets_layout_is_read(tmp_path, write_tar, encoded):
    """Shards of .jpg, .txt and .json, beside them a parquet file and a statistics file for each."""
    root = tmp_path / "laion"
    for shard in range(2):
        members = {}
        for i in range(2):
            key = f"{shard:05d}{i:04d}"
            meta = {"url": "http://example.org/a.jpg", "caption": f"c{key}", "width": 8, "height": 8, "sha256": "0"}
            members |= {f"{key}.jpg": encoded(fmt="JPEG"), f"{key}.json": json.dumps(meta).encode()}
            members |= {f"{key}.txt": f"c{key}".encode()}
        write_tar(root / f"{shard:05d}.tar", members)
        (root / f"{shard:05d}.parquet").write_bytes(b"PAR1")
        (root / f"{shard:05d}_stats.json").write_text("{}")
    dataset = ShardDataset(open_data(root), "train", fields=("caption", "json"))
    assert len(dataset) == 4
    assert dataset[3]["caption"] == dataset[3]["json"]["caption"] == "c000010001"


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_a_directory_without_shards_is_one_line_with_the_command_that_makes_it(tmp_path, kind):
    path = tmp_path / "data"
    if kind == "file":
        path.write_text("")
    elif kind == "empty":
        path.mkdir()
    says = {"missing": "does not exist", "file": "is a file", "empty": "holds no .tar shards"}[kind]
    with pytest.raises(UserError, match=f"{path} {says}.*difflab data make source=shapes out={path}") as caught:
        open_data(path)
    assert "\n" not in str(caught.value)


def test_a_directory_whose_writing_was_stopped_is_not_taken_for_plain_shards(tmp_path, write_tar, encoded):
    write_tar(tmp_path / "d/train-000000.tar", {"a.png": encoded()})
    Path(tmp_path / "d/.making.partial").mkdir()
    with pytest.raises(UserError, match=r"is unfinished .*run it again"):
        open_data(tmp_path / "d")


def test_a_truncated_plain_shard_is_named(plain):
    path = plain / "00001.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match=r"00001.tar.*truncated"):
        open_data(plain)
    assert not (plain / "index.json").exists()
