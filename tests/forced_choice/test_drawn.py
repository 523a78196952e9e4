"""A page of what `difflab sample` drew: the originals are those that the samples were conditioned on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difflab.config.data import DataConfig
from difflab.errors import UserError
from difflab.forced_choice.drawn import Origin
from difflab.forced_choice.pictures import Study
from difflab.forced_choice.study import StudyOptions, open_study
from difflab.images import to_float, to_uint8
from difflab.pipelines.pairing import low_resolution_of
from difflab.pipelines.stored import find_stored
from difflab.requests.data_split import DataSplit
from difflab.seeding import sample_seeds
from tiny_runs import ON_CPU, TRAINING, done

UPSAMPLER = ("conditioning=low_res", "conditioning.low_res.size=8", "network.concat_channels=3", "name=up")
DRAWING = ("sampler.steps=2", "split=val", *ON_CPU)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a tiny upsampler from 8 to 16 px lies, with drawings of it."""
    root = tmp_path_factory.mktemp("drawn")
    done("train", *TRAINING, *UPSAMPLER, f"data.path={tiny_shapes}", f"output_root={root}/runs")
    run = f"run={root}/runs/ddpm/shapes32/up"
    done("sample", run, "n=12", *DRAWING, f"out={root}/drawing")
    done("sample", run, "n=12", *DRAWING, "pipeline=resize", f"out={root}/resized")
    changed(root, "of_train", split="train")
    changed(root, "given", low_res="small.npz")
    longer = changed(root, "longer", n=15)
    for i in range(12, 15):
        shutil.copy(longer / f"{i - 12:06d}.png", longer / f"{i:06d}.png")
    return root


def changed(root: Path, name: str, **record: object) -> Path:
    """A copy of the drawing whose record says something else."""
    copy = Path(shutil.copytree(root / "drawing", root / name))
    known = json.loads((copy / "sample.json").read_text())
    assert record.keys() <= known.keys()
    (copy / "sample.json").write_text(json.dumps({**known, **record}))
    return copy


def study(root: Path, *samples: str, origin: Origin | None = None, task: int = 1) -> Study:
    given = [str(root / name) for name in samples or ("drawing",)]
    return open_study(StudyOptions(given, None, None, origin or Origin(None, None, None), 1 if task == 1 else 2, 0))


def refusal(root: Path, *samples: str, **more) -> str:
    with pytest.raises(UserError) as error:
        study(root, *samples, **more)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{root}/", "")


def of_split(data: Path, split: str) -> torch.Tensor:
    """uint8 [12, 3, 16, 16]"""
    config = DataConfig(path=str(data), image_size=16, batch_size=1)
    images = DataSplit(config, split, ["image"])(range(12), 0)["image"]
    assert isinstance(images, torch.Tensor)
    return images


def as_pixels(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("drawing", "split"), [("drawing", "val"), ("of_train", "train"), ("drawing/samples.npz", "val")]
)
def test_the_originals_are_those_of_the_split(root: Path, tiny_shapes: Path, drawing: str, split: str) -> None:
    found = study(root, drawing)
    images = of_split(tiny_shapes, split)
    low = to_uint8(torch.nn.functional.avg_pool2d(to_float(images), 2), "nearest")
    (samples,) = found.models.values()
    assert found.low_res is not None
    for i in (0, 5, 11):
        name = f"{i:06d}"
        assert np.array_equal(found.originals(name), as_pixels(images[i]))
        assert np.array_equal(found.low_res(name), as_pixels(low[i]))
        picture = (root / drawing if drawing.endswith("g") or "_" in drawing else root / "drawing") / f"{name}.png"
        assert np.array_equal(samples(name), np.asarray(Image.open(picture).convert("RGB")))


def test_bicubic_and_the_model_stand_on_one_page(root: Path) -> None:
    found = study(root, "drawing", "resized")
    assert list(found.models) == ["drawing", "resized"]


def test_behind_the_split_s_end_nothing_is_taken(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(root, "longer").names == [f"{i:06d}" for i in range(12)]
    assert "has 12 images, of which 15 samples were drawn: the first 12 are used" in capsys.readouterr().err


def test_a_cascade_enlarges_what_its_first_stage_reads(root: Path) -> None:
    stages = {name: {"run": f"{root}/runs/ddpm/shapes32/up"} for name in ("first", "second")}
    changed(root, "cascade", run=None, pipeline={"kind": "cascade", "stages": stages})
    found, single = study(root, "cascade"), study(root, "drawing")
    assert found.low_res is not None
    assert single.low_res is not None
    assert np.array_equal(found.low_res("000002"), single.low_res("000002"))
    assert np.array_equal(found.originals("000002"), single.originals("000002"))
    stages["first"]["run"] = "gone"
    changed(root, "broken", run=None, pipeline={"kind": "cascade", "stages": stages})
    assert "--run=gone does not exist" in refusal(root, "broken")


def test_models_on_a_page_are_told_of_the_same(root: Path) -> None:
    assert "was drawn of" in refusal(root, "drawing", "of_train")
    assert "--samples=longer holds 15 pictures and --samples=drawing 12" in refusal(root, "drawing", "longer")


def test_low_resolution_that_was_given_has_no_originals_in_the_data(root: Path) -> None:
    message = refusal(root, "given")
    assert "--samples=given was drawn with low_res=" in message
    assert "give --originals" not in message
    assert "as in --originals FOLDER --low-res FOLDER" in message


def test_another_s_samples_in_the_order_of_a_split(root: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(root / "drawing", tmp_path / "theirs"))
    for name in ("sample.json", "samples.npz", "grid.png"):
        (plain / name).unlink(missing_ok=True)
    found = study(tmp_path, "theirs", origin=Origin(None, tiny_shapes, "val"), task=2)
    assert np.array_equal(found.originals("000003"), as_pixels(of_split(tiny_shapes, "val")[3]))
    assert "task 1 shows the low resolution" in refusal(tmp_path, "theirs", origin=Origin(None, tiny_shapes, "val"))
    run = Origin(str(root / "runs/ddpm/shapes32/up"), None, None)
    assert study(tmp_path, "theirs", origin=run).low_res is not None


def test_degraded_low_resolution_follows_the_seed_of_the_drawing(root: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    degraded = ("conditioning.low_res.degradation=bsr", "name=degraded")
    done("train", *TRAINING, *UPSAMPLER, *degraded, f"data.path={tiny_shapes}", f"output_root={root}/runs")
    run = f"{root}/runs/ddpm/shapes32/degraded"
    for seed in (3, 4):
        done("sample", f"run={run}", "n=12", *DRAWING, f"seed={seed}", f"out={tmp_path}/seed{seed}")
    found, other = study(tmp_path, "seed3"), study(tmp_path, "seed4")
    assert found.low_res is not None
    assert other.low_res is not None
    made = low_resolution_of(find_stored(run, "auto").config)
    assert made is not None
    low = made(of_split(tiny_shapes, "val"), sample_seeds(3, range(12)))
    for i in (0, 11):
        assert np.array_equal(found.low_res(f"{i:06d}"), as_pixels(low[i]))
    assert not np.array_equal(found.low_res("000000"), other.low_res("000000"))
    assert "of images that were degraded otherwise than those of the first" in refusal(tmp_path, "seed3", "seed4")
    for name in ("sample.json", "samples.npz", "grid.png"):
        (tmp_path / "seed3" / name).unlink()
    message = refusal(tmp_path, "seed3", origin=Origin(run, None, None))
    assert "degrades its low-resolution images at random" in message
    assert message.endswith("give --low-res FOLDER")


def test_a_run_that_is_gone(root: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(root / "drawing", tmp_path / "moved"))
    record = json.loads((moved / "sample.json").read_text())
    (moved / "sample.json").write_text(json.dumps({**record, "run": "gone"}))
    assert "--run=gone does not exist" in refusal(tmp_path, "moved")
    assert study(tmp_path, "moved", origin=Origin(str(root / "runs/ddpm/shapes32/up"), None, None)).low_res is not None
    (moved / "sample.json").write_text("[")
    assert "sample.json is damaged: draw the samples again, or give --originals" in refusal(tmp_path, "moved")
    (moved / "unfinished.json").write_text("{}")
    assert "holds an unfinished sampling run" in refusal(tmp_path, "moved")
