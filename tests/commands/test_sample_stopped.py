from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difflab.commands.drawing import Drawing
from tiny_runs import ON_CPU, difflab, done, mistake

DRAWN = ("n=7", "batch_size=2", "seed=3", "out=drawn", *ON_CPU)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def stops_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[list[int]]]:
    """stops_after(k): Ctrl-C comes when k batches are drawn (None: never); the batches that were drawn."""
    drawn: list[list[int]] = []
    real = Drawing.batches

    def install(batches: int | None) -> list[list[int]]:
        drawn.clear()

        def interrupted(self, kept=None):
            pipeline = self.pipeline

            class Counting:
                def __getattr__(self, name):
                    return getattr(pipeline, name)

                def drawn(self, batch, seed, handed=None):
                    if len(drawn) == batches:
                        raise KeyboardInterrupt
                    drawn.append(batch["index"].tolist())
                    return pipeline.drawn(batch, seed, handed)

            object.__setattr__(self, "pipeline", Counting())
            return real(self, kept)

        monkeypatch.setattr(Drawing, "batches", interrupted)
        return drawn

    return install


def test_the_same_command_goes_on_with_what_is_missing_bit_by_bit(tiny_run: Path, tmp_path: Path, stops_after) -> None:
    done("sample", f"run={tiny_run}", *DRAWN)
    whole = files_of(tmp_path / "drawn")
    (tmp_path / "drawn").rename(tmp_path / "whole")
    stops_after(2)
    ended = difflab("sample", f"run={tiny_run}", *DRAWN)
    assert ended.status == 130
    assert "4 of 7 images are in drawn; the same command continues from there" in ended.err
    names = set(files_of(tmp_path / "drawn"))
    assert names == {*(f"{i:06d}.png" for i in range(4)), "unfinished.json"}
    drawn = stops_after(None)
    done("sample", f"run={tiny_run}", *DRAWN)
    assert drawn == [[4, 5], [6]]
    again = files_of(tmp_path / "drawn")
    assert again.keys() == whole.keys()
    for name in whole.keys() - {"samples.npz"}:
        assert again[name] == whole[name], name
    assert np.array_equal(*(np.load(tmp_path / out / "samples.npz")["arr_0"] for out in ("whole", "drawn")))


@pytest.mark.parametrize("change", ["seed=4", "sampler.steps=4", "batch_size=3", "n=6", "guidance.static_limit=1"])
def test_another_drawing_does_not_take_them(tiny_run: Path, stops_after, change: str) -> None:
    stops_after(2)
    difflab("sample", f"run={tiny_run}", *DRAWN)
    drawn = stops_after(None)
    done("sample", f"run={tiny_run}", *DRAWN, change)
    assert drawn[0][0] == 0


def test_other_weights_do_not_take_them(own_run: Path, stops_after) -> None:
    stops_after(2)
    difflab("sample", f"run={own_run}", *DRAWN)
    os.utime(own_run / "weights" / "ema.safetensors", (1, 1))
    drawn = stops_after(None)
    done("sample", f"run={own_run}", *DRAWN)
    assert drawn[0] == [0, 1]


def test_a_picture_that_is_not_whole_is_drawn_again(tiny_run: Path, tmp_path: Path, stops_after) -> None:
    stops_after(3)
    difflab("sample", f"run={tiny_run}", *DRAWN)
    picture = tmp_path / "drawn" / "000003.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:60])
    (tmp_path / "drawn" / ".000005.png.partial-1-ab").write_bytes(b"half")
    drawn = stops_after(None)
    done("sample", f"run={tiny_run}", *DRAWN)
    assert drawn == [[2, 3], [6]]
    assert picture.read_bytes() == whole
    assert not list((tmp_path / "drawn").glob(".*"))


def test_pictures_of_somebody_else_are_not_taken_for_drawn_ones(tiny_run: Path, tmp_path: Path, stops_after) -> None:
    (tmp_path / "drawn").mkdir()
    for i in (5, 6, 9):
        Image.new("RGB", (16, 16)).save(tmp_path / "drawn" / f"{i:06d}.png")
    stops_after(1)
    difflab("sample", f"run={tiny_run}", *DRAWN)
    drawn = stops_after(None)
    done("sample", f"run={tiny_run}", *DRAWN)
    assert drawn == [[2, 3], [4, 5], [6]]
    assert (tmp_path / "drawn" / "000009.png").exists()


def test_a_folder_that_is_drawn_anew_looks_unfinished_until_it_is(tiny_run: Path, tmp_path: Path, stops_after) -> None:
    done("sample", f"run={tiny_run}", *DRAWN)
    stops_after(1)
    ended = difflab("sample", f"run={tiny_run}", *DRAWN, "seed=5")
    assert "2 of 7 images are" in ended.err
    assert set(files_of(tmp_path / "drawn")) == {"000000.png", "000001.png", "unfinished.json"}


def test_without_pictures_nothing_is_kept_and_said_so(tiny_run: Path, tmp_path: Path, stops_after) -> None:
    stops_after(1)
    ended = difflab("sample", f"run={tiny_run}", *DRAWN, "png=false")
    assert ended.status == 130
    assert "nothing is kept of unfinished sampling with png=false" in ended.err
    stops_after(None)
    done("sample", f"run={tiny_run}", *DRAWN, "png=false")
    assert "unfinished.json" not in files_of(tmp_path / "drawn")
    assert json.loads((tmp_path / "drawn" / "sample.json").read_text())["n"] == 7


def test_a_full_disk_leaves_no_half_picture(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Image.Image.save

    def full(self, target, *arguments, **options):
        if "000002" in str(target):
            Path(target).touch()
            raise OSError(28, os.strerror(28), str(target))
        return real(self, target, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    ended = difflab("sample", f"run={tiny_run}", *DRAWN)
    assert ended.status == 1
    assert "no space left to write" in ended.err.splitlines()[-1]
    assert "000002.png" in ended.err.splitlines()[-1]
    assert set(files_of(tmp_path / "drawn")) == {"000000.png", "000001.png", "unfinished.json"}


@pytest.mark.parametrize("out", ["taken", "taken/inside"])
@pytest.mark.parametrize("command", ["sample", "evaluate", "likelihood"])
def test_a_file_in_place_of_the_folder_is_named(tiny_run: Path, tmp_path: Path, command: str, out: str) -> None:
    (tmp_path / "taken").write_text("mine")
    assert f"out={out}: taken is a file; give a folder" in mistake(command, f"run={tiny_run}", f"out={out}", *ON_CPU)
    assert (tmp_path / "taken").read_text() == "mine"
