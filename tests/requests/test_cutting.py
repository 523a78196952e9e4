"""Given images and masks of another size than the model's are cut as `crop` says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difflab.commands.composing import compose_and_validate
from difflab.commands.drawing import draw_name
from difflab.config.request import RequestConfig
from difflab.config.sample import SampleConfig
from difflab.config.validate import validate
from difflab.data.transforms import fit
from difflab.errors import UserError
from difflab.requests.base import Wanted
from difflab.requests.build import build_request

SIDE = 16
WANTED = Wanted((), optional=("image", "mask", "low_res"), sizes={"image": SIDE, "mask": SIDE, "low_res": 8})
SIZES = ((24, 40), (33, 20), (SIDE, SIDE))
"""Height and width of the pictures."""
PIXELS = [np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def cut(pixels: np.ndarray, crop: str) -> torch.Tensor:
    return fit(torch.from_numpy(pixels).permute(2, 0, 1), SIDE, crop)  # type: ignore[arg-type]


@pytest.mark.parametrize("crop", ["adm", "edm", "resize_short", "area"])
def test_a_folder_of_any_sizes_is_cut_as_training_images_are(photos: Path, crop: str) -> None:
    request = build_request(validate(RequestConfig, {"images": str(photos), "crop": crop}), WANTED)
    images = request(range(3), 0)["image"]
    assert torch.equal(images, torch.stack([cut(pixels, crop) for pixels in PIXELS]))
    assert torch.equal(images[2], torch.from_numpy(PIXELS[2]).permute(2, 0, 1)), "one of the size stays as it is"
    assert request.record() == {"image": f"photos crop={crop}"}


def test_an_archive_and_lines_of_a_file_are_cut_alike(photos: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "photos.npz", arr_0=PIXELS[0][None])
    (tmp_path / "asked.jsonl").write_text("\n".join(json.dumps({"image": f"photos/{n}.png"}) for n in range(2)))
    of_archive = build_request(RequestConfig(images=str(tmp_path / "photos.npz"), crop="edm"), WANTED)
    of_file = build_request(RequestConfig(request=str(tmp_path / "asked.jsonl"), crop="edm"), WANTED)
    assert torch.equal(of_archive([0], 0)["image"][0], cut(PIXELS[0], "edm"))
    assert torch.equal(of_file([0, 1], 0)["image"], torch.stack([cut(pixels, "edm") for pixels in PIXELS[:2]]))
    assert of_archive.record() == {"image": "photos.npz crop=edm"}
    assert of_file.record() == {"image": "asked.jsonl crop=edm"}


def test_a_mask_is_cut_like_its_picture(tmp_path: Path) -> None:
    """What is white in both stays so."""
    half = np.zeros((32, 64), dtype=np.uint8)
    half[:, 36:] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    given = RequestConfig(images=str(tmp_path / "half.png"), mask=str(tmp_path / "half.png"), crop="area")
    batch = build_request(given, WANTED)([0], 0)
    assert batch["mask"].shape == (1, 1, SIDE, SIDE)
    assert torch.equal(batch["image"][:, :1], batch["mask"])
    assert batch["mask"][0, 0, 0].tolist() == [0] * 10 + [255] * 6


def test_without_crop_other_sizes_are_refused_with_its_name(photos: Path, tmp_path: Path) -> None:
    remedy = r"set crop=resize_short \(or adm, edm, area\) to have them cut"
    with pytest.raises(UserError, match=f"^images=.* holds images of several sizes: .*; {remedy}, or resize them"):
        build_request(RequestConfig(images=str(photos)), WANTED)
    with pytest.raises(UserError, match=f"holds 40x24 images; this model takes 16x16 as image: {remedy}$"):
        build_request(RequestConfig(images=str(photos / "0.png")), WANTED)


def test_what_is_enlarged_is_never_cut(photos: Path) -> None:
    given = RequestConfig(images=str(photos), low_res=str(photos / "0.png"), crop="adm")
    with pytest.raises(UserError, match=r"holds 40x24 images; this model takes 8x8 as low_res$"):
        build_request(given, WANTED)


def test_crop_without_pictures_is_refused() -> None:
    with pytest.raises(UserError, match="crop=adm cuts given images, and there are none: give images=, or leave crop"):
        validate(RequestConfig, {"crop": "adm"})
    with pytest.raises(UserError, match="crop='adm_random'"):
        validate(RequestConfig, {"crop": "adm_random", "images": "x"})


def test_samples_of_differently_cut_images_have_other_folders() -> None:
    def named(*more: str) -> str:
        overrides = ["run=somewhere", "images=photos", "start=0.5", *more]
        return draw_name(compose_and_validate("sample", SampleConfig, overrides)[0])

    assert named() == named("crop=none")
    assert len({named(), named("crop=adm"), named("crop=edm")}) == 3
