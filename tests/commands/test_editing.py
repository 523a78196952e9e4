"""Drawing from an image: beginning with it, and keeping a part of it to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiny_runs import ON_CPU, done, mistake

SIZE = 16
KEPT = np.ones((SIZE, SIZE), dtype=bool)
KEPT[4:12, :8] = False


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures that between them have every value of a pixel."""
    values = np.arange(256, dtype=np.uint8).reshape(SIZE, SIZE)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, plane in enumerate((values, values.T)):
        Image.fromarray(np.stack([plane, plane[::-1], plane[:, ::-1]], axis=-1)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    folder = tmp_path / "masks"
    folder.mkdir()
    Image.fromarray(np.where(KEPT, 0, 255).astype(np.uint8)).save(folder / "left.png")
    return folder


def drawn(run: Path, out: Path, *given: str) -> np.ndarray:
    """uint8 [n, H, W, 3]"""
    done("sample", f"run={run}", f"out={out}", "grid=false", "png=false", *ON_CPU, *given)
    with np.load(out / "samples.npz") as archive:
        return archive["arr_0"]


def original(pictures: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(pictures / f"{number}.png")) for number in range(2)])


@pytest.mark.parametrize("rounding", ["truncate", "nearest", "edm"])
@pytest.mark.parametrize(
    "given",
    [
        ("sampler=ddim",),
        ("sampler=heun",),
        ("sampler=dpm_solver_pp", "inpaint.replaced=x0"),
        ("sampler=ancestral", "inpaint.jump_length=2", "inpaint.resamplings=3"),
        ("sampler=ddim", "start=0.5"),
    ],
)
def test_what_a_mask_keeps_stays_to_the_bit(tiny_run, tmp_path, pictures, masks, given, rounding):
    asked = ("n=3", f"images={pictures}", f"mask={masks}", "sampler.steps=5", f"rounding={rounding}", *given)
    images = drawn(tiny_run, tmp_path / "out", *asked)
    expected = original(pictures)[[0, 1, 0]]
    assert (images[:, KEPT] == expected[:, KEPT]).all()
    assert (images[:, ~KEPT] != expected[:, ~KEPT]).mean() > 0.5
    assert (images[0, ~KEPT] != images[2, ~KEPT]).any(), "of one picture, but with noise of their own"


def test_the_less_noise_the_closer_to_the_image(tiny_run, tmp_path, pictures):
    distances = []
    for start in ("0.2", "0.6", "1"):
        asked = ("n=2", f"images={pictures}", f"start={start}", "sampler=ddim", "sampler.steps=10")
        images = drawn(tiny_run, tmp_path / start, *asked)
        distances.append(np.abs(images.astype(int) - original(pictures)).mean())
    assert distances == sorted(distances)
    assert distances[0] < 0.5 * distances[-1]
    alone = drawn(tiny_run, tmp_path / "noise", "n=2", "sampler=ddim", "sampler.steps=10")
    assert (images == alone).all(), "all steps from pure noise have nothing of an image"


def test_an_inverted_image_comes_back(tiny_run, tmp_path, pictures):
    asked = ("n=2", f"images={pictures}", "start=0.5", "sampler=ddim", "sampler.steps=50", "sampler.eta=0")
    noised, inverted = (
        np.abs(drawn(tiny_run, tmp_path / way, *asked, f"inverted={way}").astype(int) - original(pictures)).mean()
        for way in ("false", "true")
    )
    assert inverted < 0.5 * noised


def test_a_file_of_samples_gives_images_and_masks(tiny_run, tmp_path, pictures, masks):
    lines = [{"image": f"pictures/{number}.png", "mask": "masks/left.png"} for number in range(2)]
    (tmp_path / "asked.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    images = drawn(tiny_run, tmp_path / "out", "n=2", f"request={tmp_path / 'asked.jsonl'}", "sampler.steps=3")
    assert (images[:, KEPT] == original(pictures)[:, KEPT]).all()


def test_the_record_says_what_was_done_with_an_image(tiny_run, tmp_path, pictures, masks):
    drawn(tiny_run, tmp_path / "out", "n=1", f"images={pictures}", f"mask={masks}", "start=0.5", "sampler.steps=4")
    record = json.loads((tmp_path / "out" / "sample.json").read_text())
    assert (record["start"], record["images"], record["inpaint"]["replaced"]) == (0.5, str(pictures), "x_t")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("images={pictures}",), "is not used: begin with it, as in start=0.5"),
        (("images={pictures}", "start=0"), "start=0"),
        (("images={pictures}", "start=1.5"), "start=1.5"),
        (("images={pictures}", "start=0.01"), "keeps none of 5 steps"),
        (("images={pictures}", "mask={small}"), "holds 8x8 images; this model takes 16x16 as mask"),
        (
            ("images={pictures}", "mask={ones}"),
            "mask: nothing is drawn anew, for its brightest pixel is 1, and white is",
        ),
        (("images={pictures}", "mask={masks}", "sampler=dpm_solver_pp_sde", "inpaint.resamplings=2"), "jump"),
        (
            ("images={pictures}", "start=0.5", "inpaint.resamplings=2"),
            "inpaint.resamplings has no effect without a mask",
        ),
        (("images={pictures}", "start=0.5", "inpaint.replaced=x1"), "inpaint.replaced='x1'"),
        (("images={pictures}", "start=0.5", "pipeline=resize"), "start cannot be used with pipeline=resize"),
    ],
)
def test_mistakes_are_one_line(tiny_run, tmp_path, pictures, masks, given, line):
    (tmp_path / "small").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "small" / "m.png")
    Image.fromarray(np.where(KEPT, 0, 1).astype(np.uint8)).save(tmp_path / "ones.png")
    paths = {"pictures": pictures, "masks": masks, "small": tmp_path / "small", "ones": tmp_path / "ones.png"}
    asked = [one.format(**paths) for one in given]
    assert line in mistake("sample", f"run={tiny_run}", "n=2", "sampler.steps=5", *ON_CPU, f"out={tmp_path}", *asked)


def test_what_was_drawn_may_be_drawn_on(tiny_run, tmp_path):
    done("sample", f"run={tiny_run}", "n=2", "sampler.steps=1", "npz=true", *ON_CPU, f"out={tmp_path / 'first'}")
    further = ("n=2", "start=0.5", "sampler.steps=2")
    folder, archive = (
        drawn(tiny_run, tmp_path / f"of-{name or 'folder'}", *further, f"images={tmp_path / 'first' / name}")
        for name in ("", "samples.npz")
    )
    assert (folder == archive).all()
    (tmp_path / "first" / "sample.json").rename(tmp_path / "first" / "unfinished.json")
    line = mistake("sample", f"run={tiny_run}", *further, *ON_CPU, f"images={tmp_path / 'first'}")
    assert "holds an unfinished sampling run" in line
