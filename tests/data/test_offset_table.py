import pickle

import numpy as np
import pytest

from difflab.data import offset_table
from difflab.data.index import read_index, write_index
from difflab.data.offset_table import as_table, offsets_path, read_offsets, rows_outside, write_offsets
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.errors import UserError

SAMPLES = {"a": {"png": (512, 7, 11), "txt": (1536, 3, 12)}, "b/c": {"png": (2560, 0, 13)}}


def read(tmp_path, samples=2):
    return read_offsets(tmp_path, "0.tar", samples=samples, repair="mend it")


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    write_offsets(tmp_path, "0.tar", as_table(SAMPLES, ["png", "txt"]))
    table = read(tmp_path)
    assert isinstance(table, np.memmap)
    assert table["key"].tolist() == [b"a", b"b/c"]
    assert table["txt"].tolist() == [[1536, 3], [-1, 0]]
    assert table["header/png"].tolist() == [11, 13]


def test_a_table_without_samples_is_read(tmp_path):
    write_offsets(tmp_path, "0.tar", as_table({}, []))
    assert len(read(tmp_path, samples=0)) == 0


def huge():
    return b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<i8', 'fortran_order': False, 'shape': (%d,)}" % 10**30


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing or damaged .there is no such file."),
        (b"", "is missing or damaged"),
        (b"garbage", "is missing or damaged"),
        (pickle.dumps([1]), "is missing or damaged"),
        (b"PK\x03\x04" + bytes(100), "is missing or damaged"),
        (huge().ljust(128) + b"\n", "is missing or damaged"),
        (b"\x93NUMPY\x01\x00v\x00" + (b"(" * 110).ljust(117) + b"\n", "is missing or damaged"),
        (np.zeros(2, object), "is missing or damaged"),
        (np.zeros(2), "does not fit 0.tar"),
        (np.zeros((2, 2), [("key", "S1"), ("png", "<i8", (2,))]), "does not fit 0.tar"),
        (np.zeros(3, [("key", "S1"), ("png", "<i8", (2,))]), "does not fit 0.tar with its 2 samples"),
        (np.zeros(2, [("key", "S1"), ("png", ">i8", (2,))]), "does not fit 0.tar"),
        (np.zeros(2, [("key", "S1"), ("png", "<i8", (3,))]), "does not fit 0.tar"),
        (np.zeros(2, [("key", "U1"), ("png", "<i8", (2,))]), "does not fit 0.tar"),
        (np.zeros(2, [("key", "S1"), ("png", "<i8", (2,)), ("header/png", "<i4")]), "does not fit 0.tar"),
        (np.zeros(2, [("png", "<i8", (2,))]), "does not fit 0.tar"),
    ],
)
def test_a_table_that_is_none_is_one_line(tmp_path, content, message):
    path = offsets_path(tmp_path, "0.tar")
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path} {message}.*; mend it") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_cut_short_is_damaged(tmp_path):
    write_offsets(tmp_path, "0.tar", as_table(SAMPLES, ["png", "txt"]))
    path = offsets_path(tmp_path, "0.tar")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="is missing or damaged"):
        read(tmp_path)


@pytest.mark.parametrize("number", [24, 23, 13, 5, 116, 12])
def test_what_the_machine_refuses_is_no_damage(tmp_path, monkeypatch, number):
    write_offsets(tmp_path, "0.tar", as_table(SAMPLES, ["png"]))

    def refused(path, **_):
        raise OSError(number, "refused", str(path))

    monkeypatch.setattr(np.lib.format, "open_memmap", refused)
    with pytest.raises(OSError, match="refused") as caught:
        read(tmp_path)
    assert not isinstance(caught.value, UserError)


PLACES = [
    (511, 1, True),
    (512, 0, False),
    (512, 488, False),
    (512, 489, True),
    (1000, 0, False),
    (1001, 0, True),
    (600, -1, True),
    (-2, 0, True),
    (2**62, 2**62, True),
    (2**63 - 1, 1, True),
    (600, 2**63 - 1, True),
]


@pytest.mark.parametrize(("offset", "size", "is_outside"), PLACES)
def test_places_outside_of_the_tar_are_found(offset, size, is_outside):
    table = as_table({"a": {"png": (offset, size, 0)}, "b": {"png": (512, 1, 0)}}, ["png"])
    assert rows_outside(table, 1000).tolist() == ([0] if is_outside else [])


@pytest.mark.parametrize(("offset", "size"), [(-2, 0), (2**62, 2**62), (600, -1), (0, 10)])
def test_a_sample_outside_of_its_tar_is_bad_and_no_memory_is_taken_for_it(tiny_data, offset, size):
    from difflab.data.bad_samples import BadSample
    from difflab.data.inspecting import inspect_data

    directory = open_data(tiny_data)
    table = np.array(directory.offsets(directory.split("val").shards[0]))
    table["png"][2] = (offset, size)
    offset_table.write_offsets(tiny_data, "val-000000.tar", table)
    dataset = ShardDataset(open_data(tiny_data), "val")
    assert dataset[1]["index"] == 1
    with pytest.raises(BadSample, match=r"its .png lies outside of the tar .*make the data set again"):
        dataset[2]
    problems = inspect_data(tiny_data).problems
    assert problems == ["the offset table of val-000000.tar puts 1 samples outside of the tar; make the data set again"]


def test_more_samples_than_a_tar_can_hold_are_refused_before_memory_is_taken(tiny_data):
    index = read_index(tiny_data / "index.json")
    shards = [shard.model_copy(update={"samples": 2**40}) for shard in index.splits["val"].shards]
    entry = index.splits["val"].model_copy(update={"shards": shards})
    write_index(tiny_data, index.model_copy(update={"splits": index.splits | {"val": entry}}))
    with pytest.raises(UserError, match=r"index.json is damaged: 1099511627776 samples in the \d+ bytes"):
        ShardDataset(open_data(tiny_data), "val")
