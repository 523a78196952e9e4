from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from difflab.data.shapes import BACKGROUNDS, COLOURS, Scene, SceneObject, ShapesSource, class_names, draw_scene, render
from difflab.images import to_float, to_uint8
from difflab.metrics.oracle import FoundObject, Oracle, reads_classes
from difflab.metrics.oracle_scores import same_scene

ORACLE = Oracle()


def images_of(scenes: list[Scene], resolution: int) -> Tensor:
    return torch.from_numpy(np.stack([render(scene, resolution) for scene in scenes])).permute(0, 3, 1, 2)


def drawn(resolution: int, n: int, seed: int = 5, objects: tuple[int, int] | None = None) -> tuple[Tensor, list[Scene]]:
    source = ShapesSource(resolution=resolution, n=n, seed=seed, objects=objects)
    scenes = [source.scene(i) for i in range(n)]
    return images_of(scenes, resolution), scenes


def one(
    shape: str = "circle", colour: str = "red", centre: tuple[float, float] = (0.5, 0.5), extent: float = 0.18
) -> Scene:
    return Scene((SceneObject(shape, colour, "medium", centre, extent),), "white")


def blurred(images: Tensor, sigma: float) -> Tensor:
    offsets = torch.arange(-6, 7)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = torch.nn.functional.pad(images, (6, 6, 6, 6), mode="replicate")
    rows = torch.nn.functional.conv2d(padded, kernel, groups=3)
    return torch.nn.functional.conv2d(rows, kernel.transpose(2, 3), groups=3)


def assert_read_back(found: Scene, wanted: Scene, pixels: float) -> None:
    assert same_scene(found, wanted)
    by_look = {(obj.shape, obj.colour): obj for obj in found.objects}
    for obj in wanted.objects:
        seen = by_look[obj.shape, obj.colour]
        assert seen.box == pytest.approx(obj.box, abs=pixels)


@pytest.mark.parametrize(
    ("resolution", "n", "objects"),
    [
        (16, 600, None),
        (24, 300, None),
        (32, 700, (1, 4)),
        (48, 500, (1, 4)),
        (64, 300, None),
        (128, 100, None),
        (512, 6, None),
    ],
)
def test_every_clean_image_is_read_back(resolution: int, n: int, objects: tuple[int, int] | None) -> None:
    images, scenes = drawn(resolution, n, objects=objects)
    for reading, scene in zip(ORACLE.read(images), scenes, strict=True):
        assert reading.well_formed
        assert reading.leftover == 0
        assert_read_back(reading.scene(), scene, pixels=0.5 / resolution)


@settings(max_examples=100, deadline=None)
@given(st.integers(min_value=0, max_value=2**63 - 1), st.integers(min_value=32, max_value=96))
def test_any_scene_at_any_resolution_is_read_back(seed: int, resolution: int) -> None:
    scene = draw_scene(seed, objects=(1, 4))
    (reading,) = ORACLE.read(images_of([scene], resolution))
    assert reading.well_formed
    assert_read_back(reading.scene(), scene, pixels=0.5 / resolution)


@settings(max_examples=60, deadline=None)
@given(st.integers(min_value=0, max_value=2**63 - 1), st.integers(min_value=16, max_value=31))
def test_any_single_object_below_32_pixels_is_read_back(seed: int, resolution: int) -> None:
    scene = draw_scene(seed, objects=(1, 1), sizes=("medium", "large"))
    (reading,) = ORACLE.read(images_of([scene], resolution))
    assert reading.well_formed
    assert_read_back(reading.scene(), scene, pixels=0.5 / resolution)


@pytest.mark.parametrize("rounding", ["truncate", "nearest", "edm"])
def test_float_images_and_their_rounding_make_no_difference(rounding: str) -> None:
    images, scenes = drawn(32, 100)
    scores = [ORACLE.score(x, scenes) for x in (images, to_float(images), to_uint8(to_float(images), rounding))]
    assert all(score["all"] == score["background"] == score["well_formed"] == 1 for score in scores)


def test_an_image_is_read_the_same_in_any_batch() -> None:
    images, _ = drawn(32, 40)
    whole = ORACLE.read(images)
    alone = [ORACLE.read(images[i : i + 1])[0] for i in range(40)]
    for a, b in zip(whole, alone, strict=True):
        assert a.well_formed == b.well_formed
        assert [o.phrase for o in a.objects] == [o.phrase for o in b.objects]
        assert [o.fit for o in a.objects] == pytest.approx([o.fit for o in b.objects], abs=1e-4)


@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_noise_lowers_the_scores_gradually(resolution: int) -> None:
    images, scenes = drawn(resolution, 200)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    sigmas = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.5)
    scores = [ORACLE.score(to_float(images) + sigma * noise, scenes) for sigma in sigmas]
    for name in ("all", "well_formed", "box_iou"):
        rates = [score[name] for score in scores]
        assert all(later <= earlier + 0.01 for earlier, later in itertools.pairwise(rates))
        assert rates[2] > 0.97
        assert rates[-1] < 0.03
    assert scores[3]["all"] > 0.98
    assert scores[3]["well_formed"] > 0.85


def test_blur_lowers_the_scores_gradually() -> None:
    images, scenes = drawn(32, 200)
    scores = [ORACLE.score(blurred(to_float(images), sigma), scenes) for sigma in (0.3, 0.5, 0.7, 1.0, 1.5, 2.0)]
    for name in ("all", "well_formed"):
        rates = [score[name] for score in scores]
        assert all(later <= earlier + 0.01 for earlier, later in itertools.pairwise(rates))
        assert rates[0] == 1
    assert scores[1]["all"] == 1
    assert scores[1]["well_formed"] > 0.7
    assert scores[-1]["well_formed"] < 0.05


@pytest.mark.parametrize("resolution", [16, 32, 64])
@pytest.mark.parametrize("kind", ["normal", "uniform", "binary", "smooth", "constant", "tones", "nan", "gradient"])
def test_what_is_no_scene_is_not_well_formed(kind: str, resolution: int) -> None:
    shape = (64, 3, resolution, resolution)
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(shape, generator=generator)
    tones = torch.tensor(list({**BACKGROUNDS, **COLOURS}.values()), dtype=torch.uint8)
    images = {
        "normal": normal,
        "uniform": torch.rand(shape, generator=generator) * 2 - 1,
        "binary": normal.sign(),
        "smooth": blurred(normal, 3.0) * 5,
        "constant": torch.linspace(-1, 1, 64)[:, None, None, None].expand(shape),
        "tones": tones[:, :, None, None].expand(-1, -1, resolution, resolution),
        "nan": torch.full(shape, float("nan")),
        "gradient": torch.linspace(-1, 1, resolution).expand(shape),
    }[kind]
    assert ORACLE.report(images).well_formed_rate == 0


def faulty_images() -> dict[str, np.ndarray]:
    """Images of 64 pixels that a model might make, each wrong in one way only."""
    red, white = np.array(COLOURS["red"], np.uint8), np.array(BACKGROUNDS["white"], np.uint8)
    y, x = np.mgrid[:64, :64] + 0.5

    def on_white(mask: np.ndarray, colour: object = red) -> np.ndarray:
        return np.where(mask[..., None], np.asarray(colour, np.uint8), white).astype(np.uint8)

    circle = (x - 32) ** 2 + (y - 32) ** 2 < 12**2
    turned = np.maximum(abs(x - 32 + 0.45 * (y - 32)), abs(y - 32 - 0.45 * (x - 32))) < 12
    notched = render(one("square"), 64)
    notched[28:36, 20:34] = white
    speckled = render(one(), 64)
    speckled[4:11, 4:11] = COLOURS["green"]
    haloed = render(one(extent=0.17), 64)
    haloed[(((x - 32) ** 2 + (y - 32) ** 2) ** 0.5 > 11.5) & (((x - 32) ** 2 + (y - 32) ** 2) ** 0.5 < 14)] = 150
    two_coloured = on_white(circle)
    two_coloured[circle & (x > 32)] = COLOURS["blue"]
    return {
        "half a circle": on_white(circle & (y > 32)),
        "ellipse": on_white(((x - 32) / 18) ** 2 + ((y - 32) / 9) ** 2 < 1),
        "turned square": on_white(turned),
        "thin bar": on_white((abs(x - 32) < 20) & (abs(y - 32) < 3)),
        "too large": on_white((x - 32) ** 2 + (y - 32) ** 2 < 25**2),
        "too small": on_white((x - 32) ** 2 + (y - 32) ** 2 < 5**2),
        "brown circle": on_white(circle, (120, 90, 60)),
        "two colours": two_coloured,
        "touching": on_white(circle | ((x - 53) ** 2 + (y - 32) ** 2 < 10**2)),
        "notched square": notched,
        "with a speck": speckled,
        "with a halo": haloed,
        "tinted background": np.where(circle[..., None], red, np.array([170, 230, 170])).astype(np.uint8),
        "shaded background": np.where(circle[..., None], red, (160 + 70 * (x / 64))[..., None]).astype(np.uint8),
    }


@pytest.mark.parametrize("fault", list(faulty_images()))
def test_a_faulty_image_is_not_well_formed(fault: str) -> None:
    image = torch.from_numpy(faulty_images()[fault]).permute(2, 0, 1)[None]
    assert not ORACLE.well_formed(image).item()


def test_the_same_image_without_a_fault_is_well_formed() -> None:
    y, x = np.mgrid[:64, :64] + 0.5
    circle = ((x - 32) ** 2 + (y - 32) ** 2 < 12**2)[..., None]
    jagged = np.where(circle, COLOURS["red"], BACKGROUNDS["white"]).astype(np.uint8)
    assert ORACLE.well_formed(torch.from_numpy(jagged).permute(2, 0, 1)[None]).item()


def test_more_objects_than_allowed_are_not_well_formed() -> None:
    images, scenes = drawn(64, 60)
    allowed = [len(scene.objects) <= 2 for scene in scenes]
    assert Oracle(max_objects=2).well_formed(images).tolist() == allowed
    assert set(allowed) == {True, False}


def test_a_reading_says_what_is_wrong() -> None:
    faults = {name: torch.from_numpy(image).permute(2, 0, 1)[None] for name, image in faulty_images().items()}
    read = {name: ORACLE.read(image)[0] for name, image in faults.items()}
    assert read["too large"].strays == 1
    assert read["too large"].objects == ()
    assert read["half a circle"].objects[0].fit < ORACLE.min_fit
    assert read["two colours"].leftover > ORACLE.max_leftover
    assert read["tinted background"].background_error > ORACLE.max_background_error


def test_score_tells_each_kind_of_mistake_apart() -> None:
    wanted = Scene(
        (
            SceneObject("circle", "red", "small", (0.25, 0.3), 0.12),
            SceneObject("square", "blue", "medium", (0.7, 0.7), 0.18),
        ),
        "grey",
    )
    circle, square = wanted.objects
    change = dataclasses.replace
    shown = {
        "same": wanted.objects,
        "colour": (change(circle, colour="green"), square),
        "swapped colours": (change(circle, colour="blue"), change(square, colour="red")),
        "shape": (circle, change(square, shape="ring")),
        "size": (change(circle, extent=0.17), square),
        "missing": (circle,),
        "moved": (change(circle, centre=(0.75, 0.25)), change(square, centre=(0.3, 0.7))),
    }
    scores = {name: ORACLE.score(images_of([Scene(objects, "grey")], 64), [wanted]) for name, objects in shown.items()}
    wrong = {name: {key for key, rate in score.items() if rate < 0.95} for name, score in scores.items()}
    assert wrong == {
        "same": set(),
        "colour": {"colours", "binding", "relations", "box_iou", "all"},
        "swapped colours": {"binding", "relations", "box_iou", "all"},
        "shape": {"shapes", "binding", "class", "relations", "box_iou", "all"},
        "size": {"sizes", "box_iou", "all"},
        "missing": {"count", "colours", "shapes", "sizes", "binding", "class", "relations", "box_iou", "all"},
        "moved": {"relations", "box_iou", "all"},
    }
    assert scores["colour"]["box_iou"] == pytest.approx(0.5, abs=0.02)


def test_score_averages_over_images_and_leaves_out_missing_relations() -> None:
    images, scenes = drawn(32, 50, objects=(1, 1))
    assert "relations" not in ORACLE.score(images, scenes)
    rolled = ORACLE.score(images, scenes[1:] + scenes[:1])
    assert rolled["count"] == rolled["well_formed"] == 1
    assert rolled["all"] < 0.2


@pytest.mark.parametrize("classes", ["shape", "colour", "shape_colour"])
def test_class_accuracy_follows_the_labels(classes: str) -> None:
    source = ShapesSource(resolution=32, n=120, classes=classes)
    samples = [source.sample(i) for i in range(120)]
    images = torch.from_numpy(np.stack([sample["image"] for sample in samples])).permute(0, 3, 1, 2)
    labels = torch.tensor([sample["label"] for sample in samples])
    names = class_names(classes)
    assert ORACLE.class_accuracy(images, labels, names) == 1
    assert ORACLE.class_accuracy(images, (labels + 1) % len(names), names) == 0
    assert ORACLE.class_accuracy(torch.zeros_like(images), labels, names) == 0


def test_a_report_tells_the_accuracy_of_each_class_asked_for() -> None:
    scenes = [one("circle"), one("circle"), one("square"), one("ring", "blue"), one("ring", "green")]
    labels = torch.tensor([0, 1, 1, 5, 5])
    report = ORACLE.report(images_of(scenes, 32), labels, class_names())
    assert report.class_accuracy == pytest.approx(0.8)
    assert report.class_accuracies == {"circle": 1.0, "square": 0.5, "ring": 1.0}
    plain = ORACLE.report(images_of(scenes, 32))
    assert plain.as_dict() == {k: v for k, v in report.as_dict().items() if not k.startswith("class_acc")}
    with pytest.raises(ValueError, match="label 6 is none of the 6 classes"):
        ORACLE.report(images_of(scenes, 32), labels + 1, class_names())


def test_the_oracle_reads_its_own_class_names_alone() -> None:
    assert all(reads_classes(class_names(kind)) for kind in ("shape", "colour", "shape_colour"))
    assert reads_classes(["ring", "circle"])
    for names in ([], ["cat", "dog"], [*class_names(), "cat"], ["circle red"]):
        assert not reads_classes(names)


def test_report_counts_what_is_there() -> None:
    images, scenes = drawn(32, 150)
    blank = torch.full((50, 3, 32, 32), 128, dtype=torch.uint8)
    report = ORACLE.report(torch.cat([images, blank]))
    objects = [obj for scene in scenes for obj in scene.objects]
    assert (report.n, report.resolution) == (200, 32)
    assert report.well_formed_rate == 0.75
    assert report.self_error == 0
    assert report.objects_per_image[0] == 0.25
    assert report.objects_per_image[2] == sum(len(scene.objects) == 2 for scene in scenes) / 200
    assert report.mean_objects == len(objects) / 200
    assert report.shapes["ring"] == pytest.approx(sum(obj.shape == "ring" for obj in objects) / len(objects))
    assert report.colours["cyan"] == pytest.approx(sum(obj.colour == "cyan" for obj in objects) / len(objects))
    for shares in (report.objects_per_image, report.shapes, report.colours, report.sizes, report.backgrounds):
        assert sum(shares.values()) == pytest.approx(1)
    assert report.as_dict()["objects_per_image"]["0"] == 0.25


@pytest.mark.parametrize("resolution", [16, 24, 32, 64])
def test_the_oracle_makes_no_error_of_its_own(resolution: int) -> None:
    assert ORACLE.self_error(resolution) == 0


def test_a_blunt_oracle_admits_its_errors() -> None:
    assert Oracle(min_fit=0.999).self_error(32) > 0.5


def test_found_objects_are_scene_objects() -> None:
    images, _ = drawn(32, 1)
    found = ORACLE.read(images)[0].objects[0]
    assert isinstance(found, FoundObject)
    assert found.fit > 0.9
    assert found.colour_error < 3


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 32, 32), "16..1024 pixels"),
        (torch.zeros(2, 1, 32, 32), "16..1024 pixels"),
        (torch.zeros(2, 3, 32, 48), "16..1024 pixels"),
        (torch.zeros(2, 3, 8, 8), "16..1024 pixels"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), "torch.int64"),
    ],
)
def test_other_tensors_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ORACLE.read(images)


def test_counts_that_do_not_match_are_refused() -> None:
    images, scenes = drawn(32, 3)
    with pytest.raises(ValueError, match=r"3 images .* 2 scenes"):
        ORACLE.score(images, scenes[:2])
    with pytest.raises(ValueError, match="3 images and 2 labels"):
        ORACLE.class_accuracy(images, torch.zeros(2, dtype=torch.int64), class_names())
    with pytest.raises(ValueError, match="no images"):
        ORACLE.report(images[:0])
    assert ORACLE.read(images[:0]) == []
