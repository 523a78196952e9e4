"""Cascades through the command line: stages that hand over their noise, begin with images, and keep what is masked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiny_runs import ON_CPU, TRAINING, done, mistake

pytestmark = pytest.mark.slow

FAST = ("n=2", "png=false", "grid=false", *ON_CPU)


@pytest.fixture(scope="module")
def chain(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """pipeline=cascade of a base of 8 px and an upsampler to 16."""
    root = tmp_path_factory.mktemp("cascade")
    base = ("data.image_size=8", "data.crop=resize_short", "network.attention_resolutions=[4]", "name=base")
    upsampler = ("conditioning=low_res", "conditioning.low_res.size=8", "network.concat_channels=3", "name=up")
    for options in (base, upsampler):
        done("train", *TRAINING, f"data.path={tiny_shapes}", f"output_root={root}", *options)
    stages = {"base": root / "ddpm/shapes32/base", "upsampler": root / "ddpm/shapes32/up"}
    runs = [f"pipeline.stages.{name}.run={run}" for name, run in stages.items()]
    return ("pipeline=cascade", *runs, *(f"pipeline.stages.{name}.sampler.steps=4" for name in stages))


def drawn(out: str, *given: str) -> np.ndarray:
    """uint8 [n, H, W, 3]"""
    done("sample", f"out={out}", *FAST, *given)
    with np.load(Path(out) / "samples.npz") as archive:
        return archive["arr_0"]


def refiner(run: Path, *given: str) -> tuple[str, ...]:
    stages = ("base", "refiner")
    return (
        "pipeline=refiner",
        *(f"pipeline.stages.{name}.run={run}" for name in stages),
        *(f"pipeline.stages.{name}.sampler.steps=5" for name in stages),
        *(f"pipeline.stages.{name}.guidance.static_limit=1.25" for name in stages),
        *given,
    )


def test_a_run_refines_itself_to_the_same_picture(tiny_run: Path) -> None:
    alone = drawn("alone", f"run={tiny_run}", "sampler=ddim", "sampler.steps=5", "guidance.static_limit=1.25")
    assert np.array_equal(drawn("two", *refiner(tiny_run)), alone)
    said = drawn("said", *refiner(tiny_run, "pipeline.stages.base.end=0.4", "pipeline.stages.refiner.start=0.4"))
    assert np.array_equal(said, alone)


def test_mistakes_of_a_hand_over_are_one_line(tiny_run: Path) -> None:
    def line(*given: str) -> str:
        return mistake("sample", "out=out", *FAST, *refiner(tiny_run, *given))

    assert "pipeline.stages.refiner begins at sigma" in line("pipeline.stages.refiner.start=0.6")
    assert "pipeline.stages.refiner: sampler: start: the sampler visits no level with sigma" in line(
        "pipeline.stages.base.end=0.4", "pipeline.stages.refiner.sampler.steps=7"
    )
    assert "pipeline.stages.base: sampler: end=0.01 leaves out none of 5 steps" in line("pipeline.stages.base.end=0.01")
    assert "pipeline.stages.refiner: run=gone does not exist" in line("pipeline.stages.refiner.run=gone")


def test_images_and_masks_go_through_every_stage(chain: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = np.stack([values, values.T, values[::-1]], axis=-1)
    Image.fromarray(picture).save(tmp_path / "images" / "one.png")
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[2:9, 3:11] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "one.png")
    images = drawn("masked", *chain, "images=images", "mask=masks")
    assert (images[:, mask == 0] == picture[mask == 0]).all()
    assert (images[:, mask > 0] != picture[mask > 0]).mean() > 0.5
    (tmp_path / "asked.jsonl").write_text('{"image": "images/one.png", "mask": "masks/one.png"}\n')
    assert np.array_equal(drawn("file", *chain, "request=asked.jsonl"), images)
    begun = drawn("begun", *chain, "images=images", "pipeline.stages.base.start=0.5")
    assert not np.array_equal(begun, drawn("plain", *chain))
    assert not np.array_equal(begun, drawn("further", *chain, "pipeline.stages.upsampler.start=0.5"))
    line = mistake("sample", "out=out", *FAST, *chain, "images=images")
    assert "is not used" in line
    assert "pipeline.stages.base.start=0.5" in line
    small = mistake("sample", "out=out", *FAST, *chain, "pipeline.stages.base.start=0.01", "images=images")
    assert "pipeline.stages.base: sampler: start=0.01 keeps none of 4 steps" in small


def test_experts_of_an_upsampler_enlarge_what_is_given(chain: tuple[str, ...]) -> None:
    np.savez("small.npz", np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    upsampler = Path(next(key.partition("=")[2] for key in chain if "upsampler.run" in key))
    own = ("sampler=ddim", "sampler.steps=5", "guidance.static_limit=1.25")
    alone = drawn("alone", f"run={upsampler}", *own, "low_res=small.npz")
    assert np.array_equal(drawn("two", *refiner(upsampler), "low_res=small.npz"), alone)
    line = mistake("sample", "out=out", *FAST, *chain, "low_res=small.npz")
    assert "low_res=small.npz: this model enlarges nothing" in line


def test_what_it_begins_with_comes_from_the_data_where_nobody_gives_it(chain: tuple[str, ...]) -> None:
    begun = drawn("split", *chain, "pipeline.stages.base.start=0.5")
    assert not np.array_equal(begun, drawn("plain", *chain))


@pytest.fixture(scope="module")
def enlargers(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """pipeline=sr3_16_128_1024 of models from 4 px to 8 and from 8 to 16."""
    root = tmp_path_factory.mktemp("enlargers")
    small = ("data.image_size=8", "data.crop=resize_short", "network.attention_resolutions=[4]")
    sizes = {"first": ("conditioning.low_res.size=4", *small), "second": ("conditioning.low_res.size=8",)}
    for name, options in sizes.items():
        told = ("conditioning=low_res", "network.concat_channels=3", *options)
        done("train", *TRAINING, f"data.path={tiny_shapes}", f"output_root={root}", *told, f"name={name}")
    runs = [f"pipeline.stages.{name}.run={root / 'ddpm/shapes32' / name}" for name in sizes]
    return ("pipeline=sr3_16_128_1024", *runs, *(f"pipeline.stages.{name}.sampler.steps=4" for name in sizes))


def test_a_cascade_begins_with_given_pictures_and_with_those_of_a_data_split(
    enlargers: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "small").mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "small" / f"{i}.png")
    given = drawn("given", *enlargers, "low_res=small")
    assert given.shape == (2, 16, 16, 3)
    of_split = drawn("split", *enlargers, "split=val")
    assert of_split.shape == (2, 16, 16, 3)
    assert not np.array_equal(of_split, given)
    assert "4x4" in mistake("sample", "out=large", *FAST, *enlargers, "low_res=given/samples.npz")
