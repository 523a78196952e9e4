import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from difflab.data import reading
from difflab.data.bad_samples import BadSample
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.errors import UserError


def test_every_sample_is_the_sources(open_tiny, tiny_source):
    source = tiny_source(23)
    dataset = ShardDataset(open_tiny, "train", image_size=8, fields=("label", "caption", "json"))
    assert len(dataset) == 23
    for i in (0, 9, 10, 22):
        expected, sample = source.sample(i), dataset[i]
        np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), expected["image"])
        assert {name: sample[name] for name in ("label", "caption", "json")} == {
            name: expected[name] for name in ("label", "caption", "json")
        }
        assert (sample["index"], sample["key"]) == (i, f"{i:08d}")


def test_only_the_fields_asked_for_are_read(open_tiny):
    assert set(ShardDataset(open_tiny, "val")[0]) == {"image", "index", "key"}


def test_several_samples_come_in_the_order_asked_for(open_tiny):
    dataset = ShardDataset(open_tiny, "train")
    assert [sample["index"] for sample in dataset.__getitems__([22, 0, 11])] == [22, 0, 11]


def test_numbers_outside_are_an_index_error(open_tiny):
    dataset = ShardDataset(open_tiny, "train")
    for index in (23, -1):
        with pytest.raises(IndexError, match="of 23"):
            dataset[index]


def test_few_shards_are_kept_open(open_tiny, monkeypatch):
    monkeypatch.setattr(reading, "_OPEN_SHARDS", 1)
    dataset = ShardDataset(open_tiny, "train")
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.glob("*")))
    pictures = [dataset[i]["image"] for i in (0, 10, 20, 0)]
    assert torch.equal(pictures[0], pictures[3])
    if descriptors.is_dir():
        # One tar and the map of its offsets.
        assert len(list(descriptors.glob("*"))) <= before + 2
    dataset.close()
    assert torch.equal(dataset[0]["image"], pictures[0])


def test_a_dataset_with_open_shards_can_be_sent_to_a_worker(open_tiny):
    dataset = ShardDataset(open_tiny, "train")
    expected = dataset[3]["image"]
    copy = pickle.loads(pickle.dumps(dataset))
    dataset.close()
    assert torch.equal(copy[3]["image"], expected)


def test_a_field_no_sample_has_is_refused_at_once(tmp_path, write_tar, encoded):
    write_tar(tmp_path / "d/0.tar", {"a.png": encoded()})
    with pytest.raises(
        UserError, match=r"has no caption \(.txt files\) in split 'train'; add the files, or take caption out"
    ):
        ShardDataset(open_data(tmp_path / "d"), "train", fields=("caption",))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"b.png": b"hello, I am text"}, r"0.tar/b: the .png is damaged: not an image \(it starts with b'hello, I am "),
        ({"b.png": "image"}, "0.tar/b: has no label"),
        ({"b.png": "image", "b.cls": b"dog"}, "0.tar/b: its .cls has no valid label: b'dog'"),
        ({"b.png": "image", "b.cls": b"0_1"}, r"b'0_1' \(not a whole number\)"),
        ({"b.png": "image", "b.cls": b"9"}, r"b'9' \(outside the 3 classes\)"),
        ({"b.npy": b"", "b.cls": b"1"}, "0.tar/b: has no image"),
        ({"b.png": "image", "b.cls": b"1", "b.txt": b"\xff"}, "0.tar/b: its .txt has no valid caption"),
        ({"b.png": "image", "b.cls": b"1", "b.txt": b"x", "b.json": b"[1]"}, "0.tar/b: its .json has no valid json"),
        ({"b.png": "large", "b.cls": b"1", "b.txt": b"x", "b.json": b"{}"}, "0.tar/b: the image is 12x8 px, wanted is"),
    ],
)
def test_a_bad_sample_is_named_with_its_shard_key_and_reason(tmp_path, write_tar, encoded, members, message):
    images = {"image": encoded(), "large": encoded(size=(12, 8))}
    good = {"a.png": images["image"], "a.cls": b"0", "a.txt": b"a", "a.json": b"{}"}
    write_tar(tmp_path / "d/0.tar", good | {name: images.get(value, value) for name, value in members.items()})
    dataset = ShardDataset(
        open_data(tmp_path / "d"), "train", image_size=8, fields=("label", "caption", "json"), classes=3
    )
    assert dataset[0]["label"] == 0
    with pytest.raises(BadSample, match=message):
        dataset[1]


def test_a_truncated_shard_tells_which_samples_are_lost(tiny_data):
    path = tiny_data / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:-14_000])
    dataset = ShardDataset(open_data(tiny_data), "train")
    lost = dataset.beyond_the_end()
    assert lost
    assert {index for index, _ in lost} == {i for i in range(10, 20) if is_bad(dataset, i)}
    assert "train-000001.tar/00000019: the shard is truncated" in lost[-1][1]


def is_bad(dataset, index):
    try:
        dataset[index]
    except BadSample:
        return True
    return False


def test_a_missing_or_changed_shard_is_refused(tiny_data):
    dataset = ShardDataset(open_data(tiny_data), "train")
    path = tiny_data / "train-000001.tar"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(UserError, match=r"train-000001.tar has \d+ bytes, its index says \d+: it was changed"):
        dataset.beyond_the_end()
    path.unlink()
    with pytest.raises(UserError, match=r"train-000001.tar is missing"):
        dataset.beyond_the_end()


@pytest.mark.parametrize("number", [5, 12, 116])
def test_a_disk_that_fails_is_no_bad_sample(open_tiny, monkeypatch, number):
    dataset = ShardDataset(open_tiny, "train")

    def refused(*_):
        raise OSError(number, "refused")

    monkeypatch.setattr("os.pread", refused)
    with pytest.raises(OSError, match=r"refused: .*train-000001.tar"):
        dataset[12]


def test_a_shard_that_may_not_be_looked_at_is_not_called_missing(open_tiny, monkeypatch):
    dataset = ShardDataset(open_tiny, "train")

    def refused(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.stat", refused)
    with pytest.raises(PermissionError, match=r"train-000000.tar"):
        dataset.beyond_the_end()


@pytest.mark.parametrize(("limit", "shards"), [(1024, 200), (256, 64), (2, 1), (-1, 200)])
def test_no_more_shards_are_kept_open_than_half_of_the_files_allow(open_tiny, monkeypatch, limit, shards):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY if limit == -1 else limit, 0))
    assert ShardDataset(open_tiny, "train")._files._limit == shards


def test_a_member_with_another_header_than_was_indexed_is_bad(tiny_data):
    path = tiny_data / "train-000001.tar"
    dataset = ShardDataset(open_data(tiny_data), "train", fields=("label",))
    expected = dataset[12]["image"]
    data = bytearray(path.read_bytes())
    at = int(dataset.directory.offsets(dataset._shards[1])["cls"][2][0]) - 512
    data[at + 130] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        BadSample, match=r"train-000001.tar/00000012: the tar was changed, and has something else where its .cls was"
    ):
        dataset[12]
    assert torch.equal(ShardDataset(open_data(tiny_data), "train")[12]["image"], expected)


def test_an_image_of_another_size_is_refused_before_it_is_decoded(tmp_path, encoded, write_tar, monkeypatch):
    huge = encoded()
    huge = huge[:16] + (12_000).to_bytes(4) * 2 + huge[24:]
    write_tar(tmp_path / "plain/0.tar", {"a.png": huge, "b.png": huge[:16] + (16_000).to_bytes(4) * 2 + huge[24:]})
    monkeypatch.setattr(reading, "decode_image", None)
    dataset = ShardDataset(open_data(tmp_path / "plain"), "train", image_size=8)
    with pytest.raises(BadSample, match="the image is 12000x12000 px, wanted is 8x8"):
        dataset[0]
    with pytest.raises(BadSample, match="claims 16000x16000 pixels"):
        dataset[1]


def test_a_field_that_no_shard_has_is_one_line(tiny_data):
    with pytest.raises(UserError, match=r"cannot give mask: shards have label, caption, .* has no arrays"):
        ShardDataset(open_data(tiny_data), "train", fields=("mask",))
    with pytest.raises(UserError, match=r"has no embedding \(\.npy files\) in split 'train'; add the files"):
        ShardDataset(open_data(tiny_data), "train", fields=("embedding",))


def test_captions_are_read_without_their_images(tiny_data):
    dataset = ShardDataset(open_data(tiny_data), "train", fields=("caption",))
    whole = dataset[3]
    assert dataset.sample(3, image=False) == {key: value for key, value in whole.items() if key != "image"}
