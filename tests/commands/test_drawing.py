from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from difflab.commands.composing import compose_and_validate
from difflab.commands.drawing import draw_name, prepare_drawing
from difflab.commands.processes import Processes
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.commands.sampling import made_of
from difflab.config.sample import SampleConfig
from difflab.errors import UserError
from difflab.pipelines.stored import find_stored
from tiny_runs import ON_CPU


def configured(run: Path, *overrides: str) -> SampleConfig:
    arguments = with_defaults_of_run([f"run={run}", *ON_CPU, *overrides])
    return compose_and_validate("sample", SampleConfig, arguments)[0]


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [(5, 2, [2, 2, 1]), (4, 4, [4]), (3, 8, [3])])
def test_every_sample_is_drawn_once(tiny_run: Path, n: int, batch_size: int, sizes: list[int]) -> None:
    drawing = prepare_drawing(configured(tiny_run, f"n={n}", f"batch_size={batch_size}", "sampler.steps=1"))
    batches = list(drawing.batches())
    assert [len(images) for _, images in batches] == sizes
    assert [i for asked, _ in batches for i in asked["index"].tolist()] == list(range(n))
    assert all(asked.keys() == {"index"} for asked, _ in batches)


def test_processes_share_the_samples_out(tiny_run: Path) -> None:
    config = configured(tiny_run, "n=7", "sampler.steps=1")
    drawings = [prepare_drawing(config, Processes(rank, 3)) for rank in range(3)]
    shares = [[i for asked, _ in drawing.batches() for i in asked["index"].tolist()] for drawing in drawings]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


def test_classes_given_are_cycled_through_by_number(class_run: Path) -> None:
    drawing = prepare_drawing(configured(class_run, "n=5", "batch_size=2", "classes=[3,1,2]", "sampler.steps=1"))
    assert [asked["label"].tolist() for asked, _ in drawing.batches()] == [[3, 1], [2, 3], [1]]


def test_names_tell_drawings_apart(tiny_run: Path) -> None:
    def name(*overrides: str) -> str:
        return draw_name(configured(tiny_run, *overrides))

    assert re.fullmatch(r"ddim-5-seed0-[0-9a-f]{6}", name())
    assert name("sampler=ancestral", "seed=4", "weights=raw").startswith("ancestral-all-seed4-raw-")
    assert name("sampler.steps=[10,10]").startswith("ddim-10_10-seed0-")
    assert name() == name("n=3", "batch_size=1", "devices=auto", "out=elsewhere")


@pytest.mark.parametrize(
    "override",
    ["sampler.eta=1", "guidance.static_limit=2", "rounding=edm", "precision=bf16-mixed", "classes=[1]", "split=val"],
)
def test_drawings_that_differ_do_not_share_a_folder(tiny_run: Path, override: str) -> None:
    usual, other = draw_name(configured(tiny_run)), draw_name(configured(tiny_run, override))
    assert usual != other
    assert usual.rpartition("-")[0] == other.rpartition("-")[0]
    checkpoints = [tiny_run / "checkpoints" / name for name in ("last.ckpt", "step-000003.ckpt")]
    assert len({usual, *(draw_name(configured(path)) for path in checkpoints)}) == 3


def test_memory_is_asked_for_the_images_that_there_are(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a batch larger than a process's share, which is rounded up."""
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(
        "difflab.commands.drawing.require_memory", lambda what, needed, there, fix: asked.append((what, needed))
    )
    config = configured(tiny_run, "n=7", "batch_size=1000000000")
    for processes in (Processes(), Processes(2, 3)):
        prepare_drawing(config, processes)
    prepare_drawing(configured(tiny_run, "n=7", "batch_size=2"))
    image = 4 * 4 * 3 * 16 * 16
    assert [needed for _, needed in asked] == [7 * image, 3 * image, 2 * image]


def test_classes_that_are_none_are_refused_before_anything_is_drawn(class_run: Path) -> None:
    with pytest.raises(UserError, match=r"class 6 is not in 0\.\.5"):
        prepare_drawing(configured(class_run, "n=1", "classes=[0,6]"))


def test_a_drawing_that_was_stopped_goes_on_with_as_many_processes(tiny_run: Path) -> None:
    drawing = prepare_drawing(configured(tiny_run, "n=7"))
    plain = {"seed": 0, "out": "here", "devices": 1}
    alone = made_of(plain, drawing)
    assert alone == made_of(plain | {"out": "there", "devices": "auto"}, drawing)
    assert alone != made_of(plain, dataclasses.replace(drawing, processes=Processes(0, 2)))
    assert alone != made_of(plain | {"seed": 1}, drawing)


def test_home_is_the_run_of_a_checkpoint(tiny_run: Path) -> None:
    assert find_stored(tiny_run).home == tiny_run
    assert find_stored(tiny_run / "checkpoints" / "last.ckpt").home == tiny_run


@pytest.mark.parametrize(
    "change", [{"low_res": "small.npz"}, {"weights": "raw"}, {"classes": [2]}, {"rounding": "edm"}]
)
def test_everything_that_changes_pictures_is_in_the_hash(tiny_run: Path, change: dict[str, object]) -> None:
    config = configured(tiny_run)
    ends = [draw_name(one).rpartition("-")[2] for one in (config, config.model_copy(update=change))]
    assert ends[0] != ends[1]
    assert draw_name(config, "n") != draw_name(config.model_copy(update={"n": 5}), "n")
