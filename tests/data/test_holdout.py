"""Combinations that are kept out of training, and the split that has them."""

import json

import pytest

from difflab.cli import main
from difflab.config.combinations import read_combination
from difflab.config.validate import validate
from difflab.data.shapes import Scene, ShapesSource, caption, relation
from difflab.data.shapes.holdout import has
from difflab.data.sources.shapes.build import shapes_splits
from difflab.data.sources.shapes.config import ShapesSourceConfig
from difflab.errors import UserError

OUT = ["red circle", "square above triangle", "large blue"]


def source(split="train", n=400, **options):
    return ShapesSource(resolution=32, n=n, split=split, **{"holdout": OUT, "objects": (1, 3), **options})


def combinations_in(scene, texts):
    return [text for text in texts if has(scene, read_combination(text))]


def test_a_combination_is_found_in_a_scene_whichever_way_it_is_said():
    def thing(shape, colour, size, x, y):
        return {"shape": shape, "colour": colour, "size": size, "centre": [x, y], "extent": 0.1}

    objects = [thing("circle", "red", "small", 0.5, 0.2), thing("square", "blue", "large", 0.6, 0.7)]
    scene = Scene.from_dict({"objects": objects, "background": "grey"})
    yes = [
        "red circle",
        "blue",
        "square",
        "large square",
        "circle above square",
        "large blue square below red",
        "red above blue",
    ]
    no = [
        "blue circle",
        "small square",
        "square above circle",
        "circle left of square",
        "red above red",
        "blue below blue",
    ]
    assert combinations_in(scene, yes + no) == yes


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_training_and_validation_have_none_of_them(split):
    scenes = [source(split).scene(i) for i in range(400)]
    assert not [found for scene in scenes if (found := combinations_in(scene, OUT))]
    # What is left is all there: the words one by one.
    objects = [obj for scene in scenes for obj in scene.objects]
    assert {"red", "blue"} <= {obj.colour for obj in objects}
    assert {"circle", "square", "triangle"} <= {obj.shape for obj in objects}
    counts = [sum(len(scene.objects) == count for scene in scenes) for count in (1, 2, 3)]
    assert min(counts) > 100


def test_scenes_without_them_are_those_of_a_set_where_nothing_is_held_out():
    free = source(holdout=[])
    same = [i for i in range(400) if not combinations_in(free.scene(i), OUT)]
    assert 200 < len(same) < 400
    assert all(source().scene(i) == free.scene(i) for i in same)
    assert all(len(source().scene(i).objects) == len(free.scene(i).objects) for i in range(400))


def test_each_sample_of_the_holdout_split_has_one_in_turns():
    held_out = source("holdout")
    scenes = [held_out.scene(i) for i in range(60)]
    assert all(OUT[i % 3] in combinations_in(scene, OUT) for i, scene in enumerate(scenes))
    assert [held_out.sample(i)["json"]["holdout"] for i in range(3)] == OUT
    assert len({scene.objects[0].shape for scene in scenes[::3]}) > 1, "the circle is not always the first object"
    assert source("holdout", n=10).scene(7) == held_out.scene(7)
    assert source("holdout", seed=1).scene(7) != held_out.scene(7)
    assert caption(scenes[1]) == held_out.sample(1)["caption"]


def test_a_relation_is_that_of_captions():
    scene = source("holdout", holdout=["ring left of cross"]).scene(0)
    pairs = [(a, b) for a in scene.objects for b in scene.objects if (a.shape, b.shape) == ("ring", "cross")]
    assert "left of" in [relation(a, b) for a, b in pairs]


def test_another_holdout_is_another_source():
    assert source().fingerprint() != source(holdout=["red"]).fingerprint()
    assert source(holdout=[]).fingerprint() == source(holdout=()).fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": ["crimson circle"]}, "has the word 'crimson'; sizes: small"),
        ({"holdout": 3}, "holdout=3"),
        ({"holdout_n": 3}, "holdout_n counts images with the combinations of holdout"),
        ({"holdout": "red circle", "shapes": ["square"]}, "holdout='red circle' is in no scene: shapes are square"),
        ({"holdout": "small ring", "sizes": ["medium"]}, "sizes are medium"),
        ({"holdout": "red above blue", "objects": 1}, "they have one object"),
        ({"holdout": "red ring above red ring"}, "both colour and shape in common"),
        ({"holdout": "large ring above large cross"}, "no room for two large objects"),
        ({"holdout": "circle,square", "shapes": ["circle", "square"]}, "leaves 0 of 16 pairs of colour and shape"),
        (
            {"holdout": "red,orange,yellow,green,cyan,blue,purple", "shapes": ["ring"], "objects": 2},
            "leaves 1 of 8 pairs",
        ),
    ],
)
def test_what_cannot_be_held_out_is_one_line(options, message):
    with pytest.raises(UserError, match=message):
        validate(ShapesSourceConfig, options)


def test_relations_that_leave_no_scene_are_refused_before_anything_is_written():
    every_way = [f"ring {way} ring" for way in ("above", "left of")]
    config = validate(ShapesSourceConfig, {"holdout": every_way, "shapes": ["ring"], "objects": 2, "val": 0})
    with pytest.raises(UserError, match="leaves hardly any scene with 2 objects"):
        shapes_splits(config)


def test_a_holdout_is_made_recorded_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    holdout = "holdout=[a red circle, blue square above green triangle]"
    assert main(["data", "make", "source=shapes", "out=o", "n=30", "val=6", holdout]) == 0
    assert "train 30, val 6, holdout 6 samples" in capsys.readouterr().out
    index = json.loads((tmp_path / "o/index.json").read_text())
    assert index["source"]["holdout"] == ["red circle", "blue square above green triangle"]
    assert main(["data", "make", "source=shapes", "out=p", "n=30", "val=6", "holdout=red", "holdout_n=0"]) == 0
    assert "train 30, val 6 samples" in capsys.readouterr().out
