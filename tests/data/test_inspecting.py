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


def test_a_split_without_samples_is_a_problem(tmp_path, write_tar, encoded):
    write_tar(tmp_path / "d/train-0.tar", {"22.05.png": encoded(), "22.06.png": encoded()})
    write_tar(tmp_path / "d/val-0.tar", {"a.png": encoded()})
    report = inspect_data(tmp_path / "d")
    assert len(report.problems) == 1
    assert re.match("split train holds no samples: .* 2 images with further dots", report.problems[0])
    shown = json.loads(json.dumps(report.as_dict()))
    assert (shown["ok"], shown["ignored_members"]) == (False, 2)
    assert shown["left_out"] == [{"reason": "dotted", "count": 2, "example": "22.05.png in train-0.tar"}]
    assert inspect_data(tmp_path / "d", keys="last_dot").problems == []


def test_names_that_do_not_say_the_split_are_a_problem(tmp_path, write_tar, encoded):
    for name in ("train-0.tar", "0.tar"):
        write_tar(tmp_path / "d" / name, {f"{len(name)}.png": encoded()})
    report = inspect_data(tmp_path / "d")
    assert [split.decoded for split in report.splits] == [2]
    assert re.match("which shards are for training is unclear: train-0.tar names a split and 0.tar", report.problems[0])


def test_classes_and_captions_are_counted(tiny_data):
    report = inspect_data(tiny_data, decode=5)
    train, val = report.splits
    assert train.class_counts == {"cat": 12, "dog": 11}
    assert val.class_counts == {"cat": 4, "dog": 3}
    assert (train.captions, train.caption) == (23, "picture 0")
    assert train.channels == {3: 5}
    assert (report.holdout, report.credit) == ([], {})


def test_what_the_index_says_of_holdout_and_licence_is_shown(tiny_data):
    index = read_index(tiny_data / "index.json")
    source = {"holdout": ["red circle"], "credit": {"licence": "CC0-1.0"}}
    write_index(tiny_data, index.model_copy(update={"source": source}))
    report = inspect_data(tiny_data)
    assert (report.holdout, report.credit) == (["red circle"], {"licence": "CC0-1.0"})
    assert json.loads(json.dumps(report.as_dict()))["holdout"] == ["red circle"]


def test_a_bad_label_among_samples_that_were_not_decoded_is_reported(tiny_data):
    index = read_index(tiny_data / "index.json")
    write_index(tiny_data, index.model_copy(update={"classes": ["cat"]}))
    problems = inspect_data(tiny_data, decode=0).problems
    assert [problem.partition(" labels cannot be used, as ")[0] for problem in problems] == ["11", "3"]


def test_labels_without_names_and_grey_images_are_counted(tmp_path, write_tar, encoded):
    members = {}
    for i, label in enumerate(b"2022"):
        members |= {f"{i}.png": encoded("L"), f"{i}.cls": bytes([label])}
    write_tar(tmp_path / "d/0.tar", members | {"0.txt": b"", "3.txt": b"two"})
    (split,) = inspect_data(tmp_path / "d").splits
    assert split.class_counts == {"2": 3, "0": 1}
    assert split.channels == {1: 4}
    assert (split.captions, split.caption) == (2, "two")
