"""What is encoded, and what is refused: fields that are there, other data, other encoders, damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difflab.data.directory import DataDirectory
from difflab.data.encoded.field import EncodedField
from difflab.data.encoded.planning import (
    EncodePlan,
    chosen_splits,
    refuse_damaged,
    refuse_existing_fields,
    refuse_other_images,
    refuse_other_place,
)
from difflab.data.encoded.reading import Rows
from difflab.data.index import DataIndex
from difflab.data.opening import open_data
from difflab.data.unfinished import FinishedShard
from difflab.errors import UserError

EncoderOf = Callable[..., Any]


def plan_of(directory: DataDirectory, encoder: Any, **changed: Any) -> EncodePlan:
    how = {"splits": ["train"], "dtype": "float16", "captions": "whole", "batch_size": 4, **changed}
    return EncodePlan(directory, encoder=encoder, **how)


def test_batches_are_of_one_shard(open_tiny: DataDirectory, encoder_of: EncoderOf) -> None:
    shards = plan_of(open_tiny, encoder_of()[0], splits=["train", "val"]).shards()
    assert [shard.name for shard in shards] == [*(f"train-00000{i}.tar" for i in range(3)), "val-000000.tar"]
    assert shards[1].rows(4) == [Rows("train", 10, 14), Rows("train", 14, 18), Rows("train", 18, 20)]
    assert shards[2].rows(100) == [Rows("train", 20, 23)]


def test_the_identity_is_that_of_the_bytes(open_tiny: DataDirectory, tiny_data: Path, encoder_of: EncoderOf) -> None:
    plan = plan_of(open_tiny, encoder_of()[0])
    same = plan_of(open_data(tiny_data), encoder_of()[0]).identity("cpu")
    assert plan.identity("cpu") == same
    others = [
        plan.identity("cuda"),
        plan_of(open_tiny, encoder_of(sha256="cd" * 32)[0]).identity("cpu"),
        plan_of(open_tiny, encoder_of(settings={"crop": "adm"})[0]).identity("cpu"),
        *(
            plan_of(open_tiny, encoder_of(captions=True)[0], **{key: value}).identity("cpu")
            for key, value in {"dtype": "float32", "captions": "lines", "batch_size": 5, "splits": ["val"]}.items()
        ),
    ]
    assert len({same, *others}) == 1 + len(others)


def test_splits_are_named(open_tiny: DataDirectory) -> None:
    assert chosen_splits(open_tiny, None) == ["train", "val"]
    assert chosen_splits(open_tiny, ["val", "val"]) == ["val"]
    with pytest.raises(UserError, match=r"has no split 'test' \(it has: train, val\)"):
        chosen_splits(open_tiny, ["test"])
    with pytest.raises(UserError, match=r"is a glob of shards; name splits \(there are: train, val\)"):
        chosen_splits(open_tiny, ["*.tar"])


def made(plan: EncodePlan, **changed: Any) -> dict[str, FinishedShard]:
    fields = {
        name: EncodedField(**plan.encoder.about(name, plan.captions), dtype=plan.dtype, shape=[3])
        for name in plan.encoder.fields
    }
    return {
        shard.name: FinishedShard(
            entry=shard.entry.model_copy(update={"name": shard.name}),
            split=shard.split,
            read=shard.entry.samples,
            sizes=[[8, 8]],
            channels=3,
            fields=fields,
        ).model_copy(update=changed)
        for shard in plan.shards()
    }


def test_the_index_is_carried_over_and_extended(
    open_tiny: DataDirectory, encoder_of: EncoderOf, tmp_path: Path
) -> None:
    plan = plan_of(open_tiny, encoder_of()[0])
    one = plan.extended(DataIndex(splits={}), made(plan))
    ours = open_tiny.index
    assert (one.classes, one.source, one.image_size, one.channels) == (ours.classes, ours.source, 8, 3)
    assert list(one.splits) == ["train"]
    assert one.fields["mean"].by == "tellable abababab"
    other = plan_of(open_tiny, encoder_of()[0], splits=["val"])
    other.refuse_extending(tmp_path, one)
    both = other.extended(one, made(other))
    assert {name: entry.samples for name, entry in both.splits.items()} == {"train": 23, "val": 7}
    wrong = {
        name: shard.model_copy(update={"fields": {"mean": one.fields["mean"].model_copy(update={"shape": [4]})}})
        for name, shard in made(other).items()
    }
    with pytest.raises(UserError, match=r"mean is \[4\] float16, .* in some shards, \[3\] float16"):
        other.extended(one, wrong)


def test_what_would_be_mixed_is_refused(open_tiny: DataDirectory, encoder_of: EncoderOf, tmp_path: Path) -> None:
    plan = plan_of(open_tiny, encoder_of()[0])
    index = plan.extended(DataIndex(splits={}), made(plan))
    out = tmp_path / "out"
    with pytest.raises(UserError, match="out already has a split 'train'; choose another out"):
        plan.refuse_extending(out, index)
    for changed in (
        {"encoder": encoder_of(sha256="cd" * 32)[0]},
        {"encoder": encoder_of(settings={"crop": "adm"})[0]},
        {"encoder": encoder_of()[0], "dtype": "float32"},
    ):
        with pytest.raises(UserError, match=r"out has mean as \[3\] float16, tellable abababab, and would mix it"):
            plan_of(open_tiny, splits=["val"], **changed).refuse_extending(out, index)
    both = plan_of(open_tiny, encoder_of(captions=True)[0], splits=["val"])
    with pytest.raises(UserError, match=r"out has other encoded fields \(mean\)"):
        both.refuse_extending(out, index)
    elsewhere = index.model_copy(update={"classes": ["dog", "cat"]})
    with pytest.raises(UserError, match="out is made of another data set than"):
        plan_of(open_tiny, encoder_of()[0], splits=["val"]).refuse_extending(out, elsewhere)


def test_fields_that_are_there_are_refused(
    open_tiny: DataDirectory, tmp_path: Path, write_tar: Any, encoded: Any
) -> None:
    refuse_existing_fields(open_tiny, ["train"], ["mean"])
    entry = EncodedField(encoder="tellable", sha256="ab" * 32, dtype="float16", shape=[3])
    index = open_tiny.index.model_copy(update={"fields": {"mean": entry}})
    known = DataDirectory(open_tiny.root, open_tiny.tables, index)
    with pytest.raises(UserError, match=r"already has mean, \[3\] float16, tellable abababab: encode other fields"):
        refuse_existing_fields(known, ["train"], ["first", "mean"])
    write_tar(tmp_path / "theirs/0.tar", {"a.png": encoded(), "a.mean.npy": b""})
    with pytest.raises(UserError, match="already has mean: encode other fields"):
        refuse_existing_fields(open_data(tmp_path / "theirs"), ["train"], ["mean"])


def test_the_data_set_itself_stays(open_tiny: DataDirectory, tmp_path: Path) -> None:
    refuse_other_place(open_tiny, tmp_path / "tiny2")
    for out in (open_tiny.root, open_tiny.root / "train", tmp_path / "x/../tiny"):
        with pytest.raises(UserError, match=r"lies in the data set .*, which stays as it is"):
            refuse_other_place(open_tiny, out)


def test_images_of_another_size_need_a_crop(open_tiny: DataDirectory, encoder_of: EncoderOf) -> None:
    refuse_other_images(open_tiny, encoder_of()[0])
    refuse_other_images(open_tiny, encoder_of(images=False, captions=True)[0])
    refuse_other_images(open_tiny, encoder_of(image_size=4, crop="adm")[0])
    with pytest.raises(UserError, match="holds 8 px images, the encoder takes 4: give a crop"):
        refuse_other_images(open_tiny, encoder_of(image_size=4)[0])


def test_damage_is_noticed_before_anything_is_encoded(open_tiny: DataDirectory) -> None:
    shard = open_tiny.split("train").shards[1]
    refuse_damaged(open_tiny, shard)
    tar = open_tiny.shard_path(shard)
    content = bytearray(tar.read_bytes())
    content[700] ^= 1
    tar.write_bytes(content)
    with pytest.raises(UserError, match=r"train-000001.tar is damaged: its SHA-256 is not the one of the index"):
        refuse_damaged(open_tiny, shard)
    tar.unlink()
    with pytest.raises(UserError, match=r"train-000001.tar is missing"):
        refuse_damaged(open_tiny, shard)
