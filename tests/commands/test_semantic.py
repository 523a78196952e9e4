"""A model that draws from maps of classes, through every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difflab.tracking.class_maps import PALETTE
from tiny_runs import ON_CPU, TRAINING, done, mistake

pytestmark = pytest.mark.slow

MAPS = (
    "conditioning=spatial_rescaler",
    "conditioning.segmentation.stages=0",
    "network.concat_channels=${conditioning.segmentation.channels}",
)
FAST = ("n=2", "sampler.steps=2", *ON_CPU)
MEASURED = ("metrics=none", "+metrics.oracle={kind:oracle}", "logger=csv")


def test_it_is_trained_drawn_measured_and_told_what_to_draw(tiny_shapes: Path, tmp_path: Path) -> None:
    sizes = ("resolution=16", "n=24", "val=8")
    done("data", "make", "source=shapes", "out=mapped", "segmentation=true", *sizes)
    every = [option for option in TRAINING if option != "callbacks.sample_grid=null"]
    grid = ("callbacks.sample_grid.n=2",)
    where = ("output_root=.", "name=maps")
    without = mistake("train", *every, *MAPS, *grid, f"data.path={tiny_shapes}", *where)
    assert "has no segmentation (.seg.png files) in split 'train'" in without
    few = ("conditioning.segmentation.classes=2", "output_root=.", "name=few")
    line = mistake("train", *every, *MAPS, "data.path=mapped", *few)
    assert "which is not in 0..1, the classes of this model's maps" in line
    done("train", *every, *MAPS, *grid, "data.path=mapped", *where)
    run = tmp_path / "ddpm" / "shapes32" / "maps"
    (picture,) = (run / "samples").glob("step-*.png")
    width, height = Image.open(picture).size
    assert height - 4 == 2 * 64, "each map stands below its sample"
    assert width - 6 == 2 * 64

    Image.fromarray(np.eye(16, dtype=np.uint8) * 2).save("asked.png")
    Path("asked.jsonl").write_text('{"segmentation": "asked.png"}\n')
    done("sample", f"run={run}", *FAST, "request=asked.jsonl", "out=asked")
    shown = np.asarray(Image.open(tmp_path / "asked" / "grid.png"))
    assert (shown[2 + 64, 2] == PALETTE[2].numpy()).all()
    done("sample", f"run={run}", *FAST, "out=split")
    pictures = [np.load(tmp_path / out / "samples.npz")["arr_0"] for out in ("asked", "split")]
    assert not np.array_equal(*pictures)

    done("evaluate", f"run={run}", *FAST, *MEASURED, "split=val", "out=judged")
    records = [json.loads(line) for line in (tmp_path / "judged" / "evaluations.jsonl").read_text().splitlines()]
    values = {record["metric"]: record["value"] for record in records}
    assert 0 <= values["oracle-map-box-iou"] <= values["oracle-map-found"] <= 1
    assert 0 <= values["oracle-map-iou"] <= 1
    assert records[-1]["protocol"]["sampling"]["pipeline"]["segmentation"].endswith("/val")

    Image.fromarray(np.full((16, 16), 7, np.uint8)).save("asked.png")
    assert "class 7, which is not in 0..6" in mistake("sample", f"run={run}", *FAST, "request=asked.jsonl", "out=no")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("asked.png")
    line = mistake("sample", f"run={run}", *FAST, "request=asked.jsonl", "out=no")
    assert "segmentation: the condition is for images of 8x8 pixels, and 16x16 are drawn" in line


def test_maps_of_another_size_than_trained_are_drawn_in_theirs(tiny_shapes: Path) -> None:
    done("data", "make", "source=shapes", "out=mapped", "segmentation=true", "resolution=16", "n=24", "val=8")
    done("train", *TRAINING, *MAPS, "data.path=mapped", "output_root=.", "name=maps")
    run = Path("ddpm/shapes32/maps")
    Image.fromarray(np.zeros((24, 32), np.uint8)).save("asked.png")
    Path("asked.jsonl").write_text('{"segmentation": "asked.png"}\n')
    asked = ("sample", f"run={run}", *FAST, "request=asked.jsonl")
    done(*asked, "size=[24,32]", "out=large")
    assert Image.open("large/000000.png").size == (32, 24)
    line = mistake(*asked, "out=no")
    assert "segmentation: the condition is for images of 32x24 pixels, and 16x16 are drawn" in line
