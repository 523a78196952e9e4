"""What was asked, for who does not look at pictures: none of them is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difflab.config.request import RequestConfig
from difflab.data import reading
from difflab.requests import images, sample_file
from difflab.requests.base import PICTURES, Request, Wanted
from difflab.requests.build import build_request
from pipelines.conftest import configuration

WANTED = Wanted(
    ("low_res",),
    {"low_res": "image"},
    optional=("label", "mask", "caption", "image"),
    classes=6,
    sizes={"low_res": 8, "image": 16, "mask": 16},
)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "small").mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "small" / f"{number}.png")
    return tmp_path / "small"


def of(kind: str, folder: Path, data: Path) -> Request:
    if kind == "split":
        return build_request(RequestConfig(), WANTED, configuration(f"data.path={data}").data, "val")
    if kind == "folder":
        return build_request(RequestConfig(low_res=str(folder), classes=[3, 1]), WANTED)
    if kind == "archive":
        np.savez(folder / "a.npz", np.zeros((2, 8, 8, 3), np.uint8), np.array([2, 5]))
        return build_request(RequestConfig(low_res=str(folder / "a.npz")), WANTED)
    lines = [{"low_res": f"{number}.png", "label": number, "caption": "a"} for number in range(2)]
    (folder / "asked.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return build_request(RequestConfig(request=str(folder / "asked.jsonl")), WANTED)


@pytest.mark.parametrize("kind", ["split", "folder", "archive", "file"])
def test_the_rest_is_the_same_and_no_picture_is_read(
    kind: str, pictures: Path, tiny_shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = of(kind, pictures, tiny_shapes)
    whole = request([0, 1, 2], 3)
    assert set(PICTURES) & whole.keys(), "or this test sees nothing"
    for place, name in ((reading, "decode_image"), (images, "decode_image"), (sample_file, "read_picture")):
        monkeypatch.setattr(place, name, None)
    rest = request.without_pictures()
    batch = rest([0, 1, 2], 3)
    assert batch.keys() == whole.keys() - set(PICTURES) == {*rest.fields, "index"}
    assert "label" in batch
    for field, value in batch.items():
        assert torch.equal(value, whole[field]) if isinstance(value, torch.Tensor) else value == whole[field]
