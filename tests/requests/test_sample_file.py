from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difflab.config.request import RequestConfig
from difflab.errors import UserError
from difflab.requests.base import Request, Wanted
from difflab.requests.build import build_request

WANTED = Wanted(
    ("label", "caption"),
    {"low_res": "image"},
    optional=("embedding", "low_res", "mask", "boxes"),
    classes=3,
    class_names=["circle", "square", "star"],
    sizes={"low_res": 8, "image": 16, "mask": 16},
)


def request_of(folder: Path, *samples: object, wanted: Wanted = WANTED, **keys: object) -> Request:
    path = folder / "asked.jsonl"
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in samples))
    return build_request(RequestConfig(request=str(path), **keys), wanted)


def refusal(folder: Path, *samples: object, wanted: Wanted = WANTED, **keys: object) -> str:
    with pytest.raises(UserError) as error:
        request_of(folder, *samples, wanted=wanted, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_line_is_a_sample_with_any_fields(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "small" / "a.png")
    Image.new("L", (16, 16), 255).save(tmp_path / "m.png")
    np.save(tmp_path / "e.npy", np.array([1.0, 2.0]))
    common = {"low_res": "small/a.png", "mask": "m.png", "boxes": [[0, 0, 1, 1]]}
    request = request_of(
        tmp_path,
        {"label": "star", "caption": "a star", "embedding": [0.5, 3], **common},
        "",
        {"label": 1, "caption": "", "embedding": "e.npy", **common},
    )
    batch = request([0, 1, 2], 0)
    assert batch["index"].tolist() == [0, 1, 2]
    assert batch["label"].tolist() == [2, 1, 2]
    assert batch["caption"] == ["a star", "", "a star"]
    assert torch.equal(batch["embedding"], torch.tensor([[0.5, 3], [1, 2], [0.5, 3]]))
    assert batch["low_res"].shape == (3, 3, 8, 8)
    assert batch["low_res"][0, :, 0, 0].tolist() == [1, 2, 3]
    assert batch["mask"].shape == (3, 1, 16, 16)
    assert batch["boxes"] == [[[0, 0, 1, 1]]] * 3
    assert request.record()["label"] == "asked.jsonl"
    assert {path.name for path in request.files} == {"asked.jsonl", "a.png", "m.png"}


ONE = {"label": 0, "caption": "a"}


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ((), "requests nothing: it has no line"),
        (("{",), "line 1 is no JSON"),
        (("[1]",), "line 1 is no sample: write an object"),
        ((ONE, {"label": 0}), "line 2: caption is missing, which line 1 has: give every sample the same fields"),
        ((ONE, "", {**ONE, "boxes": []}), "line 1: boxes is missing, which line 3 has"),
        (
            ({**ONE, "label": "squre"},),
            "line 1: label: no class of this model is called 'squre'; did you mean 'square'?",
        ),
        (({**ONE, "label": 3},), "line 1: label: class 3 is not in 0..2"),
        (({**ONE, "label": True},), "line 1: label is true: give the number or the name of a class"),
        (({**ONE, "label": 1.0},), "line 1: label is 1.0: give the number"),
        (({**ONE, "caption": 3},), "line 1: caption is 3: give a text"),
        (
            ({**ONE, "caption": "a \ud800"},),
            r"line 1: caption is not UTF-8 text (it holds \ud800, which is no character): correct it",
        ),
        (({**ONE, "caption": "a \0"},), "line 1: caption is not UTF-8 text (it holds zero bytes"),
        (({**ONE, "embedding": "gone.npy"},), "line 1: embedding=gone.npy does not exist in"),
        (({**ONE, "embedding": [1, "a"]},), "line 1: embedding is no embedding: give a list of finite numbers"),
        (({**ONE, "embedding": [float("nan")]},), "line 1: embedding is no embedding"),
        (
            ({**ONE, "embedding": [1, 2]}, {**ONE, "embedding": [1]}),
            "embedding is 1 numbers in line 2 and 2 numbers in line 1",
        ),
        (({**ONE, "embedding": [[1, 2], [3]]},), "line 1: embedding is no embedding"),
        (({**ONE, "boxes": [[0, 0, 1]]},), "line 1: box 0 is [0, 0, 1]: give four numbers"),
        ((ONE, {**ONE, "boxes": [[0, 0, 2, 1]]}), "line 2: box 0 is [0, 0, 2, 1], outside of 0..1"),
        (({**ONE, "boxes": [{"box": [0, 0, 1, 1]}]},), "line 1: box 0 has no phrase"),
        (
            ({**ONE, "boxes": [{"box": [0, 0, 1, 1], "phrase": "a"}]}, {**ONE, "boxes": [[0, 0, 1, 1]]}),
            "line 2: phrases is missing, which line 1 has",
        ),
        (({**ONE, "phrases": "a"},), "line 1: phrases are no list of texts"),
        (({**ONE, "mask": "../out.png"},), "line 1: mask=../out.png leaves the folder of asked.jsonl"),
        (({**ONE, "mask": "link.png"},), "line 1: mask=link.png leaves the folder of asked.jsonl"),
        (({**ONE, "mask": "/etc/hostname"},), "line 1: mask=/etc/hostname leaves the folder of asked.jsonl"),
        (({**ONE, "mask": "gone.png"},), "line 1: mask=gone.png does not exist in"),
        (({**ONE, "mask": 3},), "line 1: mask is 3: give the path of a picture"),
        (({**ONE, "mask": "small.png"},), "line 1: mask holds 8x8 images; this model takes 16x16 as mask"),
        (({**ONE, "mask": "asked.jsonl"},), "asked.jsonl cannot be read as an image"),
        (({**ONE, "colour": "red"},), "colour: this model reads no colour, it reads label, caption"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, samples: tuple[object, ...], message: str) -> None:
    folder = tmp_path / "asked"
    folder.mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "out.png")
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    Image.new("L", (8, 8)).save(folder / "small.png")
    said = refusal(folder, *samples)
    assert message in said
    assert f"{folder}/asked.jsonl" in said


def test_a_field_that_is_also_given_by_a_key_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, ONE, classes=[1])
    assert said.startswith("classes and request=")
    assert said.endswith("both give label: leave one of the two out")


def test_keys_say_what_the_file_leaves_out(tmp_path: Path) -> None:
    batch = request_of(tmp_path, {"caption": "a"}, {"caption": "b"}, classes=["star"])([0, 1], 0)
    assert batch["label"].tolist() == [2, 2]
    assert "classes gives 3 and request 2" in refusal(tmp_path, {"caption": "a"}, {"caption": "b"}, classes=[0, 1, 2])


def test_a_model_without_classes_has_no_labels_to_read(tmp_path: Path) -> None:
    said = refusal(tmp_path, ONE, wanted=Wanted(("caption",)))
    assert said.endswith("label: this model reads no label, it reads caption; leave it out")


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "gone.jsonl", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=f"^request={path} {why}: give a file of JSON lines"):
            build_request(RequestConfig(request=str(path)), WANTED)
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        build_request(RequestConfig(request=str(tmp_path / "a.jsonl")), WANTED)


def test_boxes_come_with_phrases_or_beside_them(tmp_path: Path) -> None:
    wanted = Wanted(("boxes", "phrases"))
    inside = {"boxes": [{"box": [0, 0, 1, 0.5], "phrase": "sky"}]}
    beside = {"boxes": [[0, 0, 1, 0.5]], "phrases": ["sky"]}
    nothing = {"boxes": [], "phrases": []}
    batch = request_of(tmp_path, inside, beside, nothing, wanted=wanted)([0, 1, 2], 0)
    assert batch["boxes"] == [[[0.0, 0.0, 1.0, 0.5]]] * 2 + [[]]
    assert batch["phrases"] == [["sky"], ["sky"], []]
    said = refusal(tmp_path, {"boxes": [[0, 0, 1, 1]]}, wanted=wanted)
    assert said == "this model reads phrases, which is missing: give it, as in request=FILE.jsonl"


def test_a_line_with_a_gray_image_to_enlarge_is_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "gray.png")
    said = refusal(tmp_path, {"low_res": "gray.png", "label": 0, "caption": ""})
    assert "low_res holds gray images, and this model enlarges RGB ones; give them in RGB" in said
