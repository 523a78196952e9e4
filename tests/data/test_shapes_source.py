from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from difflab.data.shapes import SHAPES, ShapesSource, class_label, class_names, render
from difflab.data.sources.shapes.config import ShapesSourceConfig


def digest(scenes: list[object]) -> str:
    return hashlib.sha256(repr(scenes).encode()).hexdigest()[:16]


def test_a_sample_has_every_field() -> None:
    source = ShapesSource(resolution=48, n=5, seed=2)
    sample = source.sample(3)
    scene = source.scene(3)
    assert len(source) == 5
    assert np.array_equal(sample["image"], render(scene, 48))
    assert sample["caption"] == sample["json"]["captions"][0]
    assert source.class_names[sample["label"]] == scene.main.shape
    assert sample["json"]["boxes"] == [list(obj.box) for obj in scene.objects]
    assert sample["json"]["phrases"] == [obj.phrase for obj in scene.objects]
    assert len(sample["json"]["objects"]) == len(scene.objects)
    assert sample["json"]["background"] == scene.background
    assert (sample["json"]["source"], sample["json"]["licence"]) == ("difflab shapes", "CC0-1.0")
    assert json.loads(json.dumps(sample["json"])) == sample["json"]


def test_paraphrases_are_lines_of_the_caption_after_the_exact_one() -> None:
    exact = ShapesSource(resolution=32, n=5, seed=2)
    told = ShapesSource(resolution=32, n=5, seed=2, paraphrases=True)
    for index in range(5):
        one, many = exact.sample(index), told.sample(index)
        assert many["caption"].split("\n") == one["json"]["captions"] == many["json"]["captions"]
        assert len(set(many["json"]["captions"])) == 5
        assert np.array_equal(one["image"], many["image"])
    assert exact.fingerprint() != told.fingerprint()


def test_samples_are_pinned() -> None:
    """Data made once must be the data made again: these scenes may change only with a new name for the data."""
    source = ShapesSource(resolution=64, n=100, seed=0)
    rounded = [
        [
            (o.shape, o.colour, o.size, round(o.centre[0], 6), round(o.centre[1], 6), round(o.extent, 6))
            for o in s.objects
        ]
        for s in map(source.scene, range(100))
    ]
    assert digest(rounded) == "e3dfcceb8e980671"
    assert source.sample(0)["caption"] == "a medium red square right of a small green triangle"
    assert source.sample(0)["image"].mean() == pytest.approx(123.3879, abs=0.05)


def test_samples_do_not_depend_on_n_or_order() -> None:
    few, many = ShapesSource(resolution=32, n=3, seed=9), ShapesSource(resolution=32, n=1000, seed=9)
    backwards = [many.scene(i) for i in (2, 1, 0)]
    assert [few.scene(i) for i in range(3)] == backwards[::-1]


def test_resolutions_make_aligned_pairs() -> None:
    small, large = (ShapesSource(resolution=r, n=20, seed=1, objects=(1, 3)) for r in (32, 256))
    assert [small.scene(i) for i in range(20)] == [large.scene(i) for i in range(20)]


def test_splits_and_seeds_share_no_scene() -> None:
    seen = {
        (seed, split): {
            ShapesSource(resolution=16, n=1500, seed=seed, split=split).scene(i).objects for i in range(1500)
        }
        for seed, split in [(0, "train"), (0, "val"), (0, "test"), (1, "train")]
    }
    assert all(len(scenes) == 1500 for scenes in seen.values())
    assert len(set.union(*seen.values())) == 4 * 1500


def test_splits_share_no_image_either() -> None:
    images = {
        split: {ShapesSource(resolution=32, n=600, split=split).sample(i)["image"].tobytes() for i in range(600)}
        for split in ("train", "val", "test")
    }
    assert len(set.union(*images.values())) == 3 * 600


@pytest.mark.parametrize(("classes", "n"), [("shape", 6), ("colour", 8), ("shape_colour", 48)])
def test_labels_name_the_main_object(classes: str, n: int) -> None:
    names = class_names(classes)
    source = ShapesSource(resolution=64, n=200, classes=classes)
    assert len(set(names)) == len(names) == n
    assert source.class_names == names
    for i in range(200):
        main = source.scene(i).main
        wanted = {"shape": main.shape, "colour": main.colour, "shape_colour": f"{main.colour} {main.shape}"}
        assert names[class_label(source.scene(i), classes)] == wanted[classes]


@pytest.mark.parametrize(("resolution", "most"), [(16, 1), (24, 1), (32, 3), (63, 3), (64, 4), (1024, 4)])
def test_object_counts_follow_the_resolution(resolution: int, most: int) -> None:
    source = ShapesSource(resolution=resolution, n=60)
    assert {len(source.scene(i).objects) for i in range(60)} == set(range(1, most + 1))
    if resolution < 32:
        assert {source.scene(i).main.size for i in range(60)} == {"medium", "large"}


def test_outside_indices_and_unknown_splits_are_refused() -> None:
    source = ShapesSource(resolution=32, n=4)
    for index in (-1, 4):
        with pytest.raises(IndexError, match="of 4"):
            source.sample(index)
    with pytest.raises(ValueError, match="not one of train, val, test"):
        ShapesSource(resolution=32, n=4, split="valid")


@pytest.mark.parametrize(
    ("written", "read"), [(2, [2, 2]), ("1-3", [1, 3]), ("4", [4, 4]), ([1, 2], [1, 2]), (None, None)]
)
def test_objects_can_be_written_short(written: object, read: list[int] | None) -> None:
    assert ShapesSourceConfig.model_validate({"objects": written}).objects == read


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resolution": 8}, "greater than or equal to 16"),
        ({"resolution": 2048}, "less than or equal to 1024"),
        ({"resolution": 16, "objects": [1, 2]}, "set objects=1 or resolution>=32"),
        ({"objects": [0, 2]}, "1 <= fewest <= most <= 4"),
        ({"objects": [3, 1]}, "1 <= fewest <= most <= 4"),
        ({"objects": 5}, "1 <= fewest <= most <= 4"),
        ({"objects": "few"}, "objects=1-3"),
        ({"objects": True}, "objects"),
        ({"classes": "size"}, "shape_colour"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_impossible_options_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ShapesSourceConfig.model_validate(values)


def test_a_source_is_made_from_its_configuration() -> None:
    config = ShapesSourceConfig(resolution=64, n=30, val=20, test=10, seed=4, objects=[2, 3], classes="colour")
    sources = {split: ShapesSource.from_config(config, split) for split in ("train", "val", "test")}
    assert {split: len(source) for split, source in sources.items()} == {"train": 30, "val": 20, "test": 10}
    direct = ShapesSource(resolution=64, n=20, seed=4, split="val", objects=(2, 3), classes="colour")
    assert sources["val"].sample(7)["json"] == direct.sample(7)["json"]
    assert sources["val"].sample(7)["label"] == direct.sample(7)["label"]
    with pytest.raises(ValueError, match="split='dev'"):
        config.count("dev")


def test_sizes_can_be_chosen() -> None:
    source = ShapesSource(resolution=32, n=40, objects=(1, 2), sizes=["medium"])
    assert {obj.size for i in range(40) for obj in source.scene(i).objects} == {"medium"}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"sizes": ["large"]}, "leaves no room for a second object"),
        ({"sizes": ["small"], "resolution": 16}, "small shapes cannot be distinguished"),
        ({"sizes": []}, "at least 1 item"),
        ({"sizes": ["huge"]}, "'small', 'medium' or 'large'"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        ShapesSourceConfig(**options)


def test_shapes_can_be_chosen() -> None:
    source = ShapesSource(resolution=32, n=40, objects=(1, 2), shapes=["circle", "ring"])
    assert {obj.shape for i in range(40) for obj in source.scene(i).objects} == {"circle", "ring"}
    assert source.class_names == class_names()


def test_the_configuration_knows_every_shape() -> None:
    assert ShapesSourceConfig().object_shapes() == tuple(SHAPES)
