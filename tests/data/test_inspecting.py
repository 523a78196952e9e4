import json
import re

import pytest

from difflab.data.index import read_index, write_index
from difflab.data.inspecting import inspect_data


def test_a_whole_data_set_has_no_problems(tiny_data):
    report = inspect_data(tiny_data, decode=None)
    train, val = report.splits
    assert report.problems == []
    assert (report.origin, report.classes, report.image_size) == ("made", 2, 8)
    assert (train.samples, train.shards, train.decoded, train.hashed, train.labels) == (23, 3, 23, 3, 2)
    assert train.image_sizes == {"8x8": 23}
    assert val.samples == 7
    assert json.loads(json.dumps(report.as_dict()))["ok"] is True


def test_some_samples_are_decoded_when_told(tiny_data):
    assert [split.decoded for split in inspect_data(tiny_data, decode=5, hashes=False).splits] == [5, 5]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("flip a bit", "train-000001.tar has changed: its SHA-256"),
        ("truncate", r"train-000001.tar has \d+ bytes, the index says"),
        ("remove", "train-000001.tar is missing"),
        ("text for an image", "train-000001.tar/00000010: the .png is damaged: not an image"),
        ("offsets", "train-000001.offsets.npy is missing"),
    ],
)
def test_every_harm_is_reported(tiny_data, harm, message):
    path = tiny_data / "train-000001.tar"
    data = bytearray(path.read_bytes())
    if harm == "flip a bit":
        data[-1] ^= 1
        path.write_bytes(data)
    elif harm == "truncate":
        path.write_bytes(data[:-512])
    elif harm == "remove":
        path.unlink()
    elif harm == "text for an image":
        at = data.index(b"\x89PNG")
        data[at : at + 16] = b"not a png at all"
        path.write_bytes(data)
    else:
        (tiny_data / "train-000001.offsets.npy").unlink()
    train, val = inspect_data(tiny_data, decode=None).splits
    assert any(re.search(message, problem) for problem in train.problems)
    assert val.problems == []


def test_a_label_outside_the_classes_is_reported(tiny_data):
    index = read_index(tiny_data / "index.json")
    write_index(tiny_data, index.model_copy(update={"classes": ["cat"]}))
    problems = inspect_data(tiny_data, decode=None).problems
    assert len(problems) == 11 + 3
    assert "b'1' (outside the 1 classes)" in problems[0]
