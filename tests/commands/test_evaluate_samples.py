"""Pictures that are made already are judged as drawn ones are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difflab.commands.measurements import given
from difflab.metrics.protocol import GivenRecord, Result
from difflab.tracking.runs import read_offline_run
from tiny_runs import ON_CPU, done, mistake

FD = ("metrics=lite0", "metrics.fd.extractor=random", "metrics.kid=null")
BOTH = ("metrics=shapes", "metrics.fd.extractor=random", "metrics.kid.extractor=random", "metrics.kid.subset_size=4")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def data(tiny_shapes: Path) -> tuple[str, ...]:
    return ("data=shapes32_single", f"data.path={tiny_shapes}", "data.image_size=16", "accelerator=cpu", "logger=none")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of six pictures, of which the archive `theirs.npz` beside it has the same pixels."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    np.savez(tmp_path / "theirs.npz", PIXELS)
    return folder


def records(folder: Path) -> list[Result]:
    return [Result.from_json(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]


def numbers(folder: Path) -> dict[str, float]:
    return {result.name: result.value for result in records(folder)}


def judged(*arguments: object) -> Path:
    """The folder that the command says its records lie in."""
    ended = done("evaluate", *arguments)
    return Path(ended.out.rpartition("records in ")[2].strip())


def test_what_sample_wrote_has_the_numbers_of_an_evaluation_to_the_last_digit(
    class_run: Path, tmp_path: Path, data: tuple[str, ...]
) -> None:
    run = Path(shutil.copytree(class_run, tmp_path / "run"))
    how = ("n=10", "seed=3", "batch_size=4", *ON_CPU)
    done("sample", f"run={run}", *how, "out=drawn")
    drawn = judged(f"run={run}", *how, *BOTH, "logger=none")
    metrics = (*BOTH, "batch_size=4")
    from_archive = judged("samples=drawn/samples.npz", *data, *metrics)
    expected, found = numbers(drawn), numbers(from_archive)
    assert "oracle-class-accuracy@10" in expected
    assert found == expected
    from_folder = numbers(judged("samples=drawn", *data, *metrics))
    assert from_folder == {name: value for name, value in expected.items() if "class-accuracy" not in name}
    ours, same = records(drawn)[0].protocol, records(from_archive)[0].protocol
    assert ours.hash != same.hash
    assert all(key.startswith("sampling") for key in ours.differences(same))
    assert from_archive.parent == tmp_path / "evaluations"
    assert from_archive.name.startswith("drawn-samples.npz-")


def test_a_folder_is_judged_as_the_archive_of_the_same_pictures(theirs: Path, data: tuple[str, ...]) -> None:
    folder, archive = judged(f"samples={theirs}", *data, *FD), judged(f"samples={theirs}.npz", *data, *FD, "out=there")
    (one,), (other,) = records(folder), records(archive)
    assert (one.name, one.value) == (other.name, other.value)
    assert one.protocol.hash == other.protocol.hash
    assert isinstance(one.protocol.sampling, GivenRecord)
    assert isinstance(other.protocol.sampling, GivenRecord)
    assert (one.protocol.sampling.name, other.protocol.sampling.name) == ("theirs", "theirs.npz")
    assert folder.parent == theirs.parent / "evaluations"
    assert archive == theirs.parent / "there"
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "overrides.txt", "evaluations.jsonl"}


def test_other_pictures_and_other_metrics_are_other_folders_and_protocols(theirs: Path, data: tuple[str, ...]) -> None:
    first = judged(f"samples={theirs}", *data, *FD)
    fewer = judged(f"samples={theirs}", *data, *FD, "n=4")
    assert records(fewer)[0].protocol.n == 4
    against_val = judged(f"samples={theirs}", *data, *FD, "split=val")
    Image.fromarray(255 - PIXELS[0]).save(theirs / "0.png")
    changed = judged(f"samples={theirs}", *data, *FD)
    assert len({first, fewer, against_val, changed}) == 4
    assert records(first)[0].protocol.differences(records(changed)[0].protocol) == ["sampling.content_hash"]


def test_a_tracker_is_told_which_pictures_they_are(theirs: Path, data: tuple[str, ...]) -> None:
    folder = judged(f"samples={theirs}", *data, *FD, "logger=wandb")
    logged = read_offline_run(folder)
    (result,) = records(folder)
    assert logged.summary["eval/fd-random@6"] == pytest.approx(result.value)
    assert isinstance(result.protocol.sampling, GivenRecord)
    assert logged.config["sampling"] == result.protocol.sampling.model_dump()
    assert (logged.job_type, logged.group) == ("evaluate", "theirs")


def test_classes_of_an_archive_are_judged_and_have_to_be_those_of_the_data(
    tmp_path: Path, data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "labelled.npz", PIXELS, np.array([0, 1, 2, 3, 4, 5]))
    np.savez(tmp_path / "more.npz", PIXELS, np.array([0, 1, 2, 3, 4, 6]))
    shapes = ("metrics=shapes", "metrics.fd=null", "metrics.kid=null")
    assert "oracle-class-accuracy@6" in numbers(judged("samples=labelled.npz", *data, *shapes))
    line = mistake("evaluate", "samples=more.npz", *data, *shapes)
    assert "arr_1 has class 6, but the data set names 6, 0..5" in line
    assert "metrics.oracle=null" in line
    judged("samples=more.npz", *data, *FD)
    # The highest of all of them, wherever it stands.
    monkeypatch.setattr(given, "HASHED_AT_ONCE", 2)
    np.savez(tmp_path / "first.npz", PIXELS, np.array([6, 1, 2, 3, 4, 5]))
    assert "arr_1 has class 6" in mistake("evaluate", "samples=first.npz", *data, *shapes)


def test_other_classes_are_other_samples(data: tuple[str, ...], tmp_path: Path) -> None:
    hashes = set()
    for labels in ([0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5]):
        np.savez(tmp_path / "labelled.npz", PIXELS, np.array(labels))
        for record in records(judged("samples=labelled.npz", *data, *FD)):
            assert isinstance(record.protocol.sampling, GivenRecord)
            hashes.add(record.protocol.sampling.content_hash)
    assert len(hashes) == 2


@pytest.mark.parametrize(
    "override",
    [
        "run=runs/mine",
        "sampler=heun",
        "sampler.steps=5",
        "guidance=classifier_free",
        "guidance.scale=2",
        "pipeline=resize",
        "classes=[1]",
        "images=photos",
        "mask=masks",
        "request=asked.jsonl",
        "start=0.5",
        "inverted=true",
        "inpaint.resamplings=2",
        "seed=1",
        "weights=raw",
        "rounding=edm",
        "precision=32-true",
        "diffusion=ddpm",
    ],
)
def test_what_says_how_to_draw_is_refused(override: str, theirs: Path, data: tuple[str, ...]) -> None:
    line = mistake("evaluate", f"samples={theirs}", *data, *FD, override)
    assert f"{override}: samples= evaluates existing images; leave" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("samples=gone",), "samples=gone does not exist: give an archive (.npz) or a folder of images"),
        (("samples=",), "samples"),
        (("samples=theirs", "n=7"), "n=7, but samples=theirs holds 6 images: leave n out, or give n=6 or less"),
        (("samples=theirs", "n=0"), "n=0"),
        (("samples=theirs", "data.image_size=8"), "holds 16x16 images and data.image_size=8: set data.image_size=16"),
        (("samples=theirs", "data.channels=1"), "holds RGB images and data.channels=1: set data.channels=3"),
        (("samples=theirs.npz", "data.channels=1"), "holds RGB images and data.channels=1: set data.channels=3"),
        (("samples=theirs", "sample=4"), "unknown key 'sample'"),
        (("samples=theirs", "metrics=lite0,shapes"), "several may be given for samples, n, split"),
        (("samples=theirs", "-m"), "-m is for jobs that sample"),
        (("samples=gray",), "holds gray images and data.channels=3: set data.channels=1, or give RGB samples"),
        (("samples=both",), "holds gray images (a.png) and RGB ones (b.png); make them alike"),
        (("samples=wide",), "holds 20x16 images and data.image_size=16: cut and resize the samples"),
        (("samples=several",), "holds images of several sizes"),
        (("samples=four.npz",), "with 4 channels [n, H, W, C]; pictures have 1 or 3"),
        (("samples=torn",), "cannot be read as an image"),
        (("samples=unfinished",), "holds an unfinished sampling run"),
        (("samples=empty",), "holds no images"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    arguments: tuple[str, ...], said: str, theirs: Path, tmp_path: Path, data: tuple[str, ...]
) -> None:
    gray, colour = Image.fromarray(PIXELS[0, :, :, 0]), Image.fromarray(PIXELS[0])
    pictures = {
        "gray": {"a.png": gray},
        "both": {"a.png": gray, "b.png": colour},
        "wide": {"a.png": colour.resize((20, 16))},
        "several": {"a.png": colour, "b.png": colour.resize((20, 16))},
        "torn": {"a.png": colour},
        "unfinished": {"a.png": colour},
        "empty": {},
    }
    for name, files in pictures.items():
        (tmp_path / name).mkdir()
        for file, picture in files.items():
            picture.save(tmp_path / name / file)
    (tmp_path / "torn" / "a.png").write_bytes((tmp_path / "torn" / "a.png").read_bytes()[:200])
    (tmp_path / "unfinished" / "unfinished.json").write_text("{}")
    np.savez(tmp_path / "four.npz", np.zeros((3, 16, 16, 4), np.uint8))
    line = mistake("evaluate", *data, *FD, *arguments)
    assert said in line
    assert not (tmp_path / "evaluations").exists()


def test_without_data_what_compares_is_refused(theirs: Path) -> None:
    line = mistake("evaluate", f"samples={theirs}", *FD, "accelerator=cpu", "logger=none")
    assert "metrics.fd compares with a data set and there is none; give data= or data.path=, or metrics.fd=null" in line


@pytest.mark.parametrize("chosen", [(), ("data=shards",)])
def test_a_data_directory_alone_is_enough(chosen: tuple[str, ...], theirs: Path, tiny_shapes: Path) -> None:
    given = (f"samples={theirs}", *FD, "accelerator=cpu", "logger=none", "data.workers=0")
    own = judged(*given, *chosen, f"data.path={tiny_shapes}", "out=own")
    named = judged(*given, "data=shapes32_single", f"data.path={tiny_shapes}", "data.image_size=16", "out=named")
    assert numbers(own) == numbers(named)


def test_a_data_directory_says_its_channels(tmp_path: Path) -> None:
    for folder in ("photos", "theirs"):
        (tmp_path / folder).mkdir()
        for number, pixels in enumerate(PIXELS):
            Image.fromarray(pixels[..., 0]).save(tmp_path / folder / f"{number}.png")
    done("data", "make", "source=folder", "path=photos", "out=grey")
    folder = judged("samples=theirs", "data.path=grey", "data.workers=0", *FD, "accelerator=cpu", "logger=none")
    assert numbers(folder)["fd-random@6"] == pytest.approx(0.0, abs=1e-3)


def test_nothing_else_lies_among_the_samples_of_a_drawing(tiny_run: Path, data: tuple[str, ...]) -> None:
    done("sample", f"run={tiny_run}", "n=5", "out=drawn", *ON_CPU)
    assert (Path("drawn") / "grid.png").exists()
    before = sorted(path.name for path in Path("drawn").iterdir())
    folder = judged("samples=drawn", *data, *FD)
    assert records(folder)[0].protocol.n == 5
    assert sorted(path.name for path in Path("drawn").iterdir()) == before
    assert json.loads((folder / "evaluations.jsonl").read_text())["protocol"]["sampling"]["name"] == "drawn"


def test_several_folders_and_archives_are_rows_of_one_table(
    theirs: Path, tmp_path: Path, data: tuple[str, ...]
) -> None:
    common = (*data, *FD, "batch_size=4")
    ended = done("evaluate", "samples=theirs,theirs.npz", "n=4,6", *common)
    (folder,) = (tmp_path / "evaluations").glob("sweep-samples-n-*")
    lines = (folder / "table.md").read_text().splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        ["| theirs", "4"],
        ["| theirs", "6"],
        ["| theirs.npz", "4"],
        ["| theirs.npz", "6"],
    ]
    assert "4 of 4 done" in ended.err
    assert "4 of 4 points are done already" in done("evaluate", "samples=theirs,theirs.npz", "n=4,6", *common).err
    Image.fromarray(PIXELS[0]).save(theirs / "1.png")
    again = done("evaluate", "samples=theirs,theirs.npz", "n=4,6", *common).err
    assert "2 of 4 points are done already" in again, "one folder has another picture now"
