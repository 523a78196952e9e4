import os

import pytest

from difflab.config.data import is_pattern
from difflab.data.shard_names import UNSORTED, as_word, list_shards, matches, sort_into_splits
from difflab.errors import UserError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("imagenet-train-000", "train"),
        ("imagenet-val-000", "val"),
        ("train000", "train"),
        ("val2017_00", "val"),
        ("000train", "train"),
        ("cc3m.validation.0", "val"),
        ("CC3M_VALID_0", "val"),
        ("Dev", "val"),
        ("x-eval-1", "val"),
        ("test", "test"),
        ("a_test_b", "test"),
        ("training-1", "train"),
        ("val/0001", "val"),
        ("Train/part-3/0", "train"),
        ("val-valid-0", "val"),
        ("imagenetTrain000", "train"),
        ("ImageNetVAL-0", "val"),
        ("trainset-000", "train"),
        ("valdata000", "val"),
        ("TestSet_1", "test"),
        ("cc3m-evaluation-0", "val"),
    ],
)
def test_a_word_of_the_name_says_the_split(name, split):
    assert sort_into_splits([f"{name}.tar"]) == ({split: [f"{name}.tar"]}, None)


@pytest.mark.parametrize(
    "name",
    ["trainer", "constraint-0", "interval_3", "evaluator", "devices", "contest-1", "trainval", "valve", "00000"],
)
def test_a_word_inside_of_another_says_nothing(name):
    assert sort_into_splits([f"{name}.tar", "x.tar"]) == ({"train": [f"{name}.tar", "x.tar"]}, None)


@pytest.mark.parametrize(
    ("tars", "why"),
    [
        (["imagenet-train-val-0.tar", "train-1.tar"], "imagenet-train-val-0.tar names train and val"),
        (["0.tar", "train-1.tar"], "train-1.tar names a split and 0.tar names none"),
        (["training-0.tar", "evaluator-0.tar"], "training-0.tar names a split and evaluator-0.tar names none"),
        (["trainVal-0.tar"], "trainVal-0.tar names train and val"),
        (["mytrain.tar", "myval.tar"], "mytrain.tar may name train and myval.tar val"),
        (["trainx-0.tar", "testx-0.tar"], "testx-0.tar may name test and trainx-0.tar train"),
        (
            ["photos-0.tar", "photos-1.tar", "photosval-0.tar"],
            "photosval-0.tar may name val, which photos-0.tar does not",
        ),
        (["0.tar", "val/0.tar"], "val/0.tar names a split and 0.tar names none"),
        (["train/test-0.tar"], "train/test-0.tar names test and train"),
    ],
)
def test_names_that_contradict_each_other_or_may_do_so_are_not_sorted(tars, why):
    assert sort_into_splits(tars) == ({UNSORTED: tars}, why)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*-train-*.tar", {"a-train-0.tar", "a-train-1.tar"}),
        ("a-train-[0]*", {"a-train-0.tar"}),
        ("*.tar", {"a-train-0.tar", "a-train-1.tar", "a-val-0.tar"}),
        ("a-val-0.tar", {"a-val-0.tar"}),
        ("train/*.tar", {"train/0.tar"}),
        ("*/0.tar", {"train/0.tar", "val/0.tar"}),
        ("A-*", set()),
    ],
)
def test_a_glob_chooses_shards_folder_by_folder(pattern, found):
    shards = ["a-train-0.tar", "a-train-1.tar", "a-val-0.tar", "train/0.tar", "val/0.tar"]
    assert is_pattern(pattern)
    assert matches(pattern, shards) == found


def test_a_glob_becomes_a_word_in_file_names():
    assert as_word("val/imagenet-[0-3]*.tar") == "val_imagenet-_0-3_.tar"
    assert as_word("val") == "val"
    assert not is_pattern("val")


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_tars_are_found_in_the_directory_and_in_folders_named_for_a_split(tmp_path):
    touch(tmp_path, "b.tar", "A.TAR", "notes.txt", ".hidden.tar", "train/1.tar", "Val/x/2.tar", "old/3.tar", ".t/4.tar")
    listing = list_shards(tmp_path)
    assert listing.tars == ["A.TAR", "Val/x/2.tar", "b.tar", "train/1.tar"]
    assert listing.unread == ["old"]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst", "val/a.TAR.XZ", "a.tbz2"])
def test_compressed_tars_are_refused_by_name(tmp_path, name):
    touch(tmp_path, "b.tar", name)
    with pytest.raises(UserError, match=rf"1 compressed tar\(s\) such as {name}; .*unpack them with"):
        list_shards(tmp_path)


def test_a_compressed_tar_beside_what_was_unpacked_from_it_is_no_harm(tmp_path):
    touch(tmp_path, "a.tar", "a.tar.gz")
    assert list_shards(tmp_path).tars == ["a.tar"]


def test_names_that_no_index_could_hold_are_refused(tmp_path):
    touch(tmp_path, "a\\b.tar")
    with pytest.raises(UserError, match="rename it"):
        list_shards(tmp_path)
    (tmp_path / "a\\b.tar").rename(tmp_path / os.fsdecode(b"caf\xe9.tar"))
    with pytest.raises(UserError, match=r"a shard named 'caf\\udce9.tar'; rename it"):
        list_shards(tmp_path)


def test_a_link_to_a_missing_shard_is_named(tmp_path):
    (tmp_path / "0.tar").symlink_to(tmp_path / "gone.tar")
    with pytest.raises(UserError, match=r"0.tar is a link to .*gone.tar, which is missing"):
        list_shards(tmp_path)


def test_a_directory_that_may_not_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError, match=str(tmp_path)):
        list_shards(tmp_path)
