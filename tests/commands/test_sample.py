from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difflab.config.stored import read_train_config
from difflab.data.shapes import class_names
from difflab.tracking.grid import LABEL_HEIGHT
from tiny_runs import ON_CPU, done, mistake

SHAPES = class_names()


def pictures(folder: Path) -> np.ndarray:
    """uint8 [n, H, W, 3] of the numbered PNGs in a folder."""
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("[0-9]*.png"))])


def written(folder: Path) -> dict:
    return json.loads((folder / "sample.json").read_text())


def test_everything_asked_for_is_written(tiny_run: Path, tmp_path: Path) -> None:
    ended = done("sample", f"run={tiny_run}", "n=5", "batch_size=2", "seed=3", "trajectory=3", "out=drawn", *ON_CPU)
    assert ended.out == f"5 samples of {tiny_run} in drawn\n"
    out = tmp_path / "drawn"
    names = {path.name for path in out.iterdir()}
    assert names == {*(f"{i:06d}.png" for i in range(5)), "grid.png", "samples.npz", "trajectory.png", "sample.json"}
    archive = np.load(out / "samples.npz")
    assert archive.files == ["arr_0"]
    assert (archive["arr_0"].shape, archive["arr_0"].dtype) == ((5, 16, 16, 3), np.uint8)
    assert np.array_equal(pictures(out), archive["arr_0"])
    # 16-pixel images are enlarged four times; five of them in one row, with two pixels around each.
    assert Image.open(out / "grid.png").size == (5 * 66 + 2, 66 + 2)
    assert Image.open(out / "trajectory.png").size == (3 * 66 + 2, 5 * 66 + 2)
    assert np.array_equal(
        np.asarray(Image.open(out / "trajectory.png"))[2:66:4, 2 + 132 : 66 + 132 : 4], pictures(out)[0]
    )


def test_a_trajectory_has_at_most_one_moment_a_step_and_eight_samples(tiny_run: Path, tmp_path: Path) -> None:
    done("sample", f"run={tiny_run}", "n=9", "sampler.steps=2", "trajectory=8", "png=false", "out=drawn", *ON_CPU)
    assert Image.open(tmp_path / "drawn" / "trajectory.png").size == (2 * 66 + 2, 8 * 66 + 2)


def test_samples_depend_on_the_seed_and_the_number_alone(tiny_run: Path, tmp_path: Path) -> None:
    for out, arguments in {"a": ["n=5", "batch_size=2"], "b": ["n=3", "batch_size=32"], "c": ["n=3", "seed=1"]}.items():
        done("sample", f"run={tiny_run}", f"out={out}", *arguments, *ON_CPU)
    a, b, c = (pictures(tmp_path / out).astype(int) for out in "abc")
    assert np.abs(a[:3] - b).max() <= 1
    assert np.abs(b - c).max() > 10


def test_the_way_the_run_drew_is_the_default_and_overrides_win(tiny_run: Path, tmp_path: Path) -> None:
    done("sample", f"run={tiny_run}", "n=1", "out=own", *ON_CPU)
    own = written(tmp_path / "own")
    assert (own["sampler"]["kind"], own["sampler"]["steps"], own["sampler"]["eta"]) == ("ddim", 5, 0.5)
    assert own["guidance"]["static_limit"] == 1.25
    done("sample", f"run={tiny_run}", "n=1", "out=fewer", "sampler.steps=2", "guidance.static_limit=1", *ON_CPU)
    fewer = written(tmp_path / "fewer")
    assert (fewer["sampler"]["steps"], fewer["sampler"]["eta"], fewer["guidance"]["static_limit"]) == (2, 0.5, 1)
    done("sample", f"run={tiny_run}", "n=1", "out=group", "sampler=ddim", "guidance=none", *ON_CPU)
    group = written(tmp_path / "group")
    assert (group["sampler"]["steps"], group["sampler"]["eta"], group["guidance"]["static_limit"]) == (50, 0.0, 1.0)


def test_pictures_lie_in_the_run_unless_told_otherwise(own_run: Path) -> None:
    only = ("png=false", "grid=false", "npz=false", "n=1")
    done("sample", f"run={own_run}", *only, *ON_CPU)
    done("sample", f"run={own_run}", *only, "weights=raw", "seed=2", *ON_CPU)
    done(
        "sample", f"run={own_run / 'checkpoints' / 'last.ckpt'}", *only, "sampler=ancestral", "sampler.steps=2", *ON_CPU
    )
    done("sample", f"run={own_run}", *only, 'sampler.steps="1,2"', "sampler.spacing=sections", *ON_CPU)
    assert (own_run / "samples" / "ledger.jsonl").is_file()
    made = [path for path in (own_run / "samples").iterdir() if path.is_dir()]
    folders = {path.name: {inner.name for inner in path.iterdir()} for path in made}
    assert {name.rpartition("-")[0] for name in folders} == {
        "ddim-5-seed0",
        "ddim-5-seed2-raw",
        "ancestral-2-seed0",
        "ddim-1_2-seed0",
    }
    assert list(folders.values()) == [{"sample.json"}] * 4


def test_a_smaller_drawing_leaves_nothing_of_a_larger_one(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "000009.png").write_text("not of a drawing")
    done("sample", f"run={tiny_run}", "n=4", "trajectory=2", "out=drawn", *ON_CPU)
    assert (tmp_path / "drawn" / "000009.png").is_file(), "only a folder that a drawing made is cleared"
    done("sample", f"run={tiny_run}", "n=2", "sampler.eta=1", "grid=false", "out=drawn", *ON_CPU)
    names = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert names == {"000000.png", "000001.png", "samples.npz", "sample.json"}


def test_averaged_and_raw_weights_draw_differently(tiny_run: Path, tmp_path: Path) -> None:
    checkpoint = tiny_run / "checkpoints" / "last.ckpt"
    for out, run, weights in (("a", tiny_run, "ema"), ("b", tiny_run, "raw"), ("c", checkpoint, "ema")):
        done("sample", f"run={run}", f"weights={weights}", f"out={out}", "n=2", *ON_CPU)
    a, b, c = (pictures(tmp_path / out) for out in "abc")
    assert np.array_equal(a, c)
    assert not np.array_equal(a, b)


def test_classes_are_kept_beside_the_images(class_run: Path, tmp_path: Path) -> None:
    done("sample", f"run={class_run}", "n=5", "batch_size=2", "out=own", *ON_CPU)
    own = np.load(tmp_path / "own" / "samples.npz")["arr_1"]
    assert own.dtype == np.int64
    assert set(own) <= set(range(6))
    done("sample", f"run={class_run}", "n=5", "batch_size=2", "classes=[4,1]", "out=given", *ON_CPU)
    assert np.load(tmp_path / "given" / "samples.npz")["arr_1"].tolist() == [4, 1, 4, 1, 4]


def test_classes_are_given_by_name_to_a_run_a_checkpoint_and_an_export(class_run: Path, tmp_path: Path) -> None:
    """Their names come from the data's index, and stay with the model where the data is gone."""
    fast = ("n=3", "sampler.steps=1", *ON_CPU)
    stored = read_train_config(class_run / "config.yaml")
    assert stored.data.class_names == SHAPES
    done("weights", "export", class_run, "--out", "exported")
    assert json.loads(Path("exported/config.json").read_text())["config"]["class_names"] == SHAPES
    for name, run in (("a", class_run), ("b", class_run / "checkpoints" / "last.ckpt"), ("c", "exported")):
        done("sample", f"run={run}", f"classes=[{SHAPES[3]},{SHAPES[1]}]", f"out={name}", *fast)
        assert np.load(f"{name}/samples.npz")["arr_1"].tolist() == [3, 1, 3]
        assert json.loads(Path(f"{name}/sample.json").read_text())["class_names"] == SHAPES
    done("sample", f"run={class_run}", "classes=[3,1]", "out=numbers", *fast)
    assert np.array_equal(pictures(tmp_path / "a"), pictures(tmp_path / "numbers"))
    message = mistake("sample", f"run={class_run}", "classes=[sqare]", "out=wrong")
    assert message == "difflab sample: no class of this model is called 'sqare'; did you mean 'square'?"


def test_the_grid_says_what_was_asked_for_and_is_as_wide_as_asked(class_run: Path, tmp_path: Path) -> None:
    done("sample", f"run={class_run}", "n=5", "columns=3", "classes=[1]", "out=drawn", "sampler.steps=1", *ON_CPU)
    with Image.open(tmp_path / "drawn" / "grid.png") as grid:
        # Two rows of three pictures of 64 px, each with a line below it, two pixels around each.
        assert grid.size == (2 + 3 * 66, 2 + 2 * (66 + LABEL_HEIGHT))
        below = np.asarray(grid)[2 + 64 : 2 + 64 + LABEL_HEIGHT, 2:66]
    assert below.min() < 100, "there are letters"


def test_the_grid_is_of_the_first_samples_alone(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("difflab.commands.sample_archive.GRID_MOST", 4)
    drawn = ("n=9", "batch_size=2", "columns=2", "sampler.steps=1", *ON_CPU)
    ended = done("sample", f"run={tiny_run}", "out=drawn", *drawn)
    assert "note: grid.png shows the first 4 of 9 samples" in ended.err
    done("sample", f"run={tiny_run}", "out=alone", "npz=false", "png=false", *drawn)
    with Image.open(tmp_path / "drawn" / "grid.png") as grid, Image.open(tmp_path / "alone" / "grid.png") as alone:
        assert grid.size == (2 + 2 * 66, 2 + 2 * 66)
        assert np.array_equal(np.asarray(grid), np.asarray(alone))
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == ["grid.png", "sample.json"]


def test_without_a_terminal_progress_is_lines(tiny_run: Path) -> None:
    ended = done("sample", f"run={tiny_run}", "n=5", "batch_size=2", "out=drawn", *ON_CPU)
    assert ended.err.splitlines()[-1] == "sampling 5 images, batches: 3 done"
    assert "\r" not in ended.err
    assert "\x1b" not in ended.err + ended.out


@pytest.mark.parametrize(
    "override",
    [
        "diffusion.timesteps=5",
        "network=unet_small",
        "+network.dropout=0.1",
        "conditioning=class",
        "diffusion/schedule=cosine",
    ],
)
def test_the_model_comes_from_the_run(tiny_run: Path, override: str) -> None:
    message = mistake("sample", f"run={tiny_run}", override)
    assert message.startswith(f"difflab sample: {override}: the model comes from the run as it was trained")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sampler.steps=51"], "sampler: cannot take 51 steps of a section with 50 (of 50 in all); ask for 1..50"),
        (["sampler=dimm"], "sampler=dimm: no such choice; did you mean ddim?"),
        (["sampler.step=3"], "sampler.step"),
        (["sampler=ddim_inversion"], "maps images to noise"),
        (["n=0"], "n=0: input should be greater than or equal to 1"),
        (["classes=[1]"], "this model has no classes: leave classes=null"),
        (["weights=best"], "weights='best'"),
        (["rounding=up"], "rounding='up'"),
        (["devices=0"], "devices"),
        (["guidance.scale=3"], "guidance"),
        (["--trajectory"], "unknown flag --trajectory"),
        (["8"], "'8' is not an override; write key=value"),
    ],
)
def test_mistakes_are_one_line(tiny_run: Path, arguments: list[str], message: str) -> None:
    assert message in mistake("sample", f"run={tiny_run}", *arguments)


def test_a_run_must_be_given_and_be_there(tmp_path: Path) -> None:
    wanted = "a run directory, an exported folder or a checkpoint"
    assert mistake("sample", "n=2") == f"difflab sample: run has no value: give one, as in run=... ({wanted})"
    assert "run=runs/nowhere does not exist: give a run directory" in mistake("sample", "run=runs/nowhere")
    assert "neither a run directory (config.yaml)" in mistake("sample", f"run={tmp_path}")
    assert not list(tmp_path.iterdir()), "a refused command writes nothing"


def test_a_class_that_is_none_of_the_model_s_is_refused_before_anything_is_drawn(
    class_run: Path, tmp_path: Path
) -> None:
    message = mistake("sample", f"run={class_run}", "n=2", "batch_size=1", "classes=[0,6]", "out=drawn")
    assert message == "difflab sample: class 6 is not in 0..5, the classes of this model"
    assert "classes=[] is empty" in mistake("sample", f"run={class_run}", "classes=[]", "out=drawn")
    assert not (tmp_path / "drawn").exists()


def test_help_needs_no_run() -> None:
    ended = done("sample", "--help")
    assert "sampler: ancestral, ddim" in ended.out
    assert "steps: 50" in ended.out


def test_an_exported_folder_draws_the_same(tiny_run: Path, tmp_path: Path) -> None:
    done("weights", "export", tiny_run, "--out", tmp_path / "exported")
    for out, run in (("a", tiny_run), ("b", "exported")):
        done("sample", f"run={run}", "n=2", f"out={out}", *ON_CPU)
    assert np.array_equal(pictures(tmp_path / "a"), pictures(tmp_path / "b"))
    done("sample", "run=exported", "n=1", *ON_CPU)
    assert len(list((tmp_path / "exported" / "samples").glob("ddim-5-seed0-*/grid.png"))) == 1
