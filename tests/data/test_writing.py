import hashlib
import json

import pytest
import webdataset

from difflab.config.axes import SOURCES
from difflab.data import placing
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.data.writing import write_dataset, write_shards
from difflab.errors import UserError


def content(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


class BrokenSource:
    """Fails after some samples, as when the user stops the command."""

    class_names = None

    def __init__(self, source, good):
        self.source = source
        self.good = good

    def __len__(self):
        return len(self.source)

    def sample(self, index):
        if index == self.good:
            raise KeyboardInterrupt
        return self.source.sample(index) | {"label": None}


def test_the_index_says_what_was_written(tiny_data):
    index = json.loads((tiny_data / "index.json").read_text())
    assert (index["format"], index["version"], index["image_size"]) == ("difflab-shards", 1, 8)
    assert index["classes"] == ["cat", "dog"]
    shards = index["splits"]["train"]["shards"]
    assert [shard["samples"] for shard in shards] == [10, 10, 3]
    for shard in shards:
        path = tiny_data / shard["name"]
        assert shard["bytes"] == path.stat().st_size
        assert shard["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert shard["members"] == dict.fromkeys(["cls", "json", "png", "txt"], shard["samples"])
    assert sum(shard["samples"] for shard in index["splits"]["val"]["shards"]) == 7


def test_the_same_source_gives_the_same_bytes(tmp_path, tiny_source):
    for name in ("a", "b"):
        write_shards(tiny_source(23), tmp_path / name, shard_size=10)
    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_several_processes_write_the_same_bytes(tmp_path, workers):
    kind = SOURCES["shapes"]
    config = kind.config(kind="shapes", resolution=16, n=70, val=0)
    for name, processes in (("a", 0), ("b", workers)):
        write_dataset(kind.load_builder()(config), tmp_path / name, shard_size=50, workers=processes)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_webdataset_itself_reads_the_shards(tiny_data):
    dataset = webdataset.WebDataset(str(tiny_data / "train-{000000..000002}.tar"), shardshuffle=False).decode("pil")
    samples = list(dataset)
    assert [sample["cls"] for sample in samples] == [i % 2 for i in range(23)]
    assert samples[22]["txt"] == "picture 22"
    assert samples[22]["png"].size == (8, 8)


@pytest.mark.parametrize(("image_format", "exact"), [("png", True), ("webp", True), ("jpg", False)])
def test_formats_keep_the_pixels(tmp_path, tiny_source, image_format, exact):
    source = tiny_source(2, size=32)
    write_shards(source, tmp_path / "d", image_format=image_format)
    image = ShardDataset(open_data(tmp_path / "d"), "train")[1]["image"].permute(1, 2, 0).numpy().astype(int)
    error = abs(image - source.sample(1)["image"]).max()
    assert (error == 0) if exact else (0 < error < 80)


@pytest.mark.parametrize("failure", [KeyboardInterrupt])
def test_a_stopped_command_leaves_nothing(tmp_path, tiny_source, failure):
    with pytest.raises(failure):
        write_shards(BrokenSource(tiny_source(23), 15), tmp_path / "d", shard_size=10)
    assert not (tmp_path / "d").exists()


def test_a_stopped_command_leaves_what_was_there(tiny_data, tiny_source):
    before = content(tiny_data)
    with pytest.raises(KeyboardInterrupt):
        write_shards(
            _with_classes(BrokenSource(tiny_source(23), 15)), tiny_data, split="train", shard_size=10, overwrite=True
        )
    assert content(tiny_data) == before


def _with_classes(source):
    source.class_names = ["cat", "dog"]
    return source


def test_a_failure_while_moving_is_told_from_a_data_set_and_can_be_run_again(tmp_path, tiny_source, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(placing, "write_index", full)
        with pytest.raises(OSError, match="no space"):
            write_shards(tiny_source(5), tmp_path / "d")
    with pytest.raises(UserError, match="is unfinished"):
        open_data(tmp_path / "d")
    write_shards(tiny_source(5), tmp_path / "d")
    assert not list((tmp_path / "d").glob(".*"))
    assert open_data(tmp_path / "d").split("train").samples == 5


def test_a_killed_command_is_told_from_a_data_set_and_can_be_run_again(tmp_path, tiny_source):
    write_shards(tiny_source(5), tmp_path / "d")
    finished = content(tmp_path / "d")
    # What a kill between moving the shards and writing the index would leave.
    (tmp_path / "d/index.json").unlink()
    (tmp_path / "d/.making.partial").mkdir()
    with pytest.raises(UserError, match=r"is unfinished .*run it again"):
        open_data(tmp_path / "d")
    write_shards(tiny_source(5), tmp_path / "d")
    assert content(tmp_path / "d") == finished


def test_a_split_is_replaced_only_when_told(tiny_data, tiny_source):
    with pytest.raises(UserError, match=r"already has a split 'train'; give overwrite=true"):
        write_shards(tiny_source(4), tiny_data)
    write_shards(tiny_source(4), tiny_data, overwrite=True)
    directory = open_data(tiny_data)
    assert {name: entry.samples for name, entry in directory.index.splits.items()} == {"train": 4, "val": 7}
    assert sorted(path.name for path in tiny_data.glob("train*")) == ["train-000000.offsets.npy", "train-000000.tar"]


def test_images_of_several_sizes_have_no_common_one(tmp_path, tiny_source):
    assert write_dataset({"train": tiny_source(2), "val": tiny_source(2, size=9)}, tmp_path / "d").image_size is None


@pytest.mark.parametrize("case", ["empty", "classes", "file", "foreign", "nothing"])
def test_what_cannot_be_written_is_one_line(tmp_path, tiny_data, tiny_source, write_tar, case):
    (tmp_path / "file").write_text("")
    write_tar(tmp_path / "foreign/0.tar", {"a.png": b""})
    sources, out, message = {
        "empty": ({"train": tiny_source(0)}, tmp_path / "d", "holds no samples"),
        "classes": ({"test": tiny_source(2, classes=None)}, tiny_data, "split 'test' has other classes"),
        "file": ({"train": tiny_source(2)}, tmp_path / "file", "is a file; choose a directory"),
        "foreign": ({"train": tiny_source(2)}, tmp_path / "foreign", "made by another tool"),
        "nothing": ({}, tmp_path / "d", "nothing to write"),
    }[case]
    with pytest.raises(UserError, match=message):
        write_dataset(sources, out)
