from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from difflab.config.data import DataConfig
from difflab.config.request import RequestConfig
from difflab.data.build import build_dataset
from difflab.data.opening import open_data
from difflab.errors import UserError
from difflab.metrics.reference import shards_reference
from difflab.requests.base import UNIFORM, Wanted, labels_of
from difflab.requests.build import build_request
from difflab.requests.data_split import DataSplit
from difflab.seeding import stream_seed
from pipelines.conftest import configuration

NAMES = ["circle", "square", "triangle", "star", "cross", "ring"]
CLASSES = Wanted(("label",), classes=6, class_names=NAMES)
CAPTIONS = Wanted(("caption",))
BOTH = Wanted(("label", "caption"), classes=6, class_names=NAMES)


def asked(wanted: Wanted, **keys: object):
    return build_request(RequestConfig(**keys), wanted)


def refusal(wanted: Wanted, data=None, **keys: object) -> str:
    with pytest.raises(UserError) as error:
        build_request(RequestConfig(**keys), wanted, data)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_unconditional_model_is_asked_for_nothing_but_numbers() -> None:
    request = asked(Wanted())
    batch = request([3, 1], 7)
    assert batch.keys() == {"index"}
    assert batch["index"].tolist() == [3, 1]
    assert request.record() == {}


def test_classes_come_from_the_seed_where_nobody_says_them() -> None:
    request = asked(CLASSES)
    assert labels_of(request([5, 0], 3)) == [stream_seed(3, "class", i) % 6 for i in (5, 0)]
    assert request.record() == {"label": UNIFORM}


@pytest.mark.parametrize("given", [[2, 1], ["triangle", "square"], ["triangle", 1]])
def test_classes_are_taken_in_turn_by_number_or_by_name(given: list[object]) -> None:
    request = asked(CLASSES, classes=given)
    assert labels_of(request([0, 1, 2, 7], 0)) == [2, 1, 2, 1]
    assert request.record() == {"label": [2, 1]}


@pytest.mark.parametrize(
    ("wanted", "given", "message"),
    [
        (CLASSES, ["squar"], "no class of this model is called 'squar'; did you mean 'square'?"),
        (CLASSES, ["zebra"], "no class of this model is called 'zebra'; they are circle, square, triangle, "),
        (CLASSES, [0, 6], "class 6 is not in 0..5, the classes of this model"),
        (CLASSES, [-1], "class -1 is not in 0..5, the classes of this model"),
        (
            Wanted(("label",), classes=6),
            ["circle"],
            "'circle' is a name, and the names of this model's classes are unknown",
        ),
        (Wanted(("label",), classes=2, class_names=["a", "a"]), ["a"], "classes 0 and 1 are both called 'a'"),
        (CAPTIONS, [0], "this model has no classes: leave classes=null"),
    ],
)
def test_unknown_classes_are_one_line(wanted: Wanted, given: list[object], message: str) -> None:
    assert refusal(wanted, classes=given).startswith(message)


def test_prompts_are_a_list_or_a_text_file(tmp_path: Path) -> None:
    listed = asked(CAPTIONS, prompts=["a red circle", "sky"])
    assert listed([0, 3], 0)["caption"] == ["a red circle", "sky"]
    assert listed.record() == {"caption": ["a red circle", "sky"]}
    (tmp_path / "p.txt").write_bytes("\ufeffa red circle\r\n\r\n  sky \n".encode())
    read = asked(CAPTIONS, prompts=str(tmp_path / "p.txt"))
    assert read([0, 1, 2], 0)["caption"] == ["a red circle", "sky", "a red circle"]
    assert read.record() == {"caption": "p.txt"}
    assert read.files == [tmp_path / "p.txt"]


def test_prompts_that_are_none_are_one_line(tmp_path: Path) -> None:
    assert "does not exist: give a text file, one prompt per line, or a list" in refusal(
        CAPTIONS, prompts="a red circle"
    )
    assert "is a folder" in refusal(CAPTIONS, prompts=str(tmp_path))
    (tmp_path / "p.txt").write_text(" \n\n")
    assert "holds no prompts: it has no text" in refusal(CAPTIONS, prompts=str(tmp_path / "p.txt"))
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\xff")
    assert "holds no prompts: not UTF-8" in refusal(CAPTIONS, prompts=str(tmp_path / "p.txt"))
    with pytest.raises(ValueError, match="prompts is empty"):
        RequestConfig(prompts=[])
    with pytest.raises(ValueError, match=r"classes=\[\] is empty"):
        RequestConfig(classes=[])


def test_lists_of_unequal_lengths_are_refused_unless_one_is_for_all() -> None:
    said = refusal(BOTH, classes=[0, 1], prompts=["a", "b", "c"])
    assert said == "classes gives 2 and prompts 3: give as many of both, or one of them for all samples"
    request = asked(BOTH, classes=["star"], prompts=["a", "b", "c"])
    batch = request([0, 1, 2, 3], 0)
    assert batch["label"].tolist() == [3] * 4
    assert batch["caption"] == ["a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"prompts": ["sky"]}, "prompts: this model reads no caption, it reads label; leave it out"),
        (
            {"images": "x"},
            "images=x is not used: begin with it, as in start=0.5, or give a mask= of what is kept",
        ),
        ({"mask": "x"}, "mask=x: this model reads no mask, it reads label; leave it out"),
        ({"low_res": "x"}, "low_res=x: this model enlarges nothing; leave low_res out"),
    ],
)
def test_what_nobody_reads_is_refused(keys: dict[str, object], message: str) -> None:
    assert refusal(CLASSES, **keys) == message
    unconditional = message.replace("it reads label", "it is unconditional")
    assert refusal(Wanted(), **keys) == unconditional


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (CAPTIONS, "this model reads caption, which is missing: give it, as in prompts=['a red circle']"),
        (
            Wanted(("low_res",), {"low_res": "image"}, sizes={"low_res": 8}),
            "this model reads low_res (8x8 images), which is missing: give it, as in low_res=samples.npz",
        ),
        (Wanted(("embedding",)), "this model reads embedding, which is missing: give it, as in request=FILE.jsonl"),
    ],
)
def test_what_is_missing_says_what_to_give(wanted: Wanted, message: str, tiny_shapes: Path) -> None:
    assert refusal(wanted).startswith(message)
    # A data split has no embeddings either.
    if wanted.reads == ("embedding",):
        data = configuration(f"data.path={tiny_shapes}").data
        assert refusal(wanted, data).startswith(message)


def test_captions_of_a_data_split_come_with_the_class_of_the_same_sample(tiny_shapes: Path) -> None:
    data = configuration("conditioning=class", f"data.path={tiny_shapes}").data
    request = build_request(RequestConfig(), BOTH, data, "val")
    samples = build_dataset(data.model_copy(update={"fields": ["label", "caption"]}), split="val")
    batch = request([1, 12], 0)
    assert batch["caption"] == [samples[1]["caption"], samples[0]["caption"]]
    assert batch["label"].tolist() == [samples[1]["label"], samples[0]["label"]]
    assert request.record() == {"caption": "tiny/val", "label": "tiny/val"}
    given = build_request(RequestConfig(classes=[5]), BOTH, data, "val")
    assert given([1], 0)["label"].tolist() == [5]
    assert given([1], 0)["caption"] == batch["caption"][:1]
    assert given.record() == {"label": [5], "caption": "tiny/val"}
    prompts = build_request(RequestConfig(prompts=["sky"]), BOTH, data, "val")
    assert labels_of(prompts([1], 0)) == [stream_seed(0, "class", 1) % 6], "no split is needed: from the seed"


def test_images_to_make_smaller_are_recorded_as_what_they_stand_for(tiny_shapes: Path) -> None:
    data = configuration(f"data.path={tiny_shapes}").data
    wanted = Wanted(("low_res",), {"low_res": "image"}, sizes={"low_res": 8, "image": 16})
    request = build_request(RequestConfig(), wanted, data, "val")
    assert request([0], 0)["image"].shape == (1, 3, 16, 16)
    assert request.record() == {"low_res": "tiny/val"}


def test_the_seed_decides_classes_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.zeros((2, 8, 8, 3), np.uint8))
    wanted = Wanted(("low_res", "label"), {"low_res": "image"}, classes=6, sizes={"low_res": 8})
    request = build_request(RequestConfig(low_res=str(tmp_path / "a.npz")), wanted)
    one, other = request(range(20), 0), request(range(20), 1)
    assert (one["low_res"] == other["low_res"]).all()
    assert (one["label"] != other["label"]).any()


def test_the_split_is_that_of_the_training_where_globs_made_it(tiny_shapes: Path, tmp_path: Path) -> None:
    for name, split in {"a-0.tar": "val", "b-0.tar": "train"}.items():
        shutil.copy(tiny_shapes / f"{split}-000000.tar", tmp_path / name)
    data = DataConfig(path=str(tmp_path), image_size=16, batch_size=1, train_split="a-*.tar", val_split="b-*.tar")
    for split, glob in {"train": "a-*.tar", "val": "b-*.tar"}.items():
        held, wanted = (DataSplit(data, one, ["image"]) for one in (split, glob))
        assert held.record() == wanted.record()
        assert torch.equal(held(range(3), 0)["image"], wanted(range(3), 0)["image"])
    totals = {split: shards_reference(data, split, batch_size=1).total for split in ("train", "val")}
    first = {split: open_data(tiny_shapes).split(split).shards[0].samples for split in ("train", "val")}
    assert totals == {"train": first["val"], "val": first["train"]}
