"""Samples of other sizes than the training images'."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tiny_runs import ON_CPU, done, mistake


@pytest.mark.slow
@pytest.mark.parametrize(("given", "shape"), [("24", (24, 24)), ("[16,32]", (32, 16))])
def test_a_convolutional_network_draws_other_sizes(tiny_run: Path, given: str, shape: tuple[int, int]) -> None:
    done("sample", f"run={tiny_run}", "n=2", f"size={given}", "out=drawn", "trajectory=2", *ON_CPU)
    assert Image.open("drawn/000001.png").size == shape
    done("sample", f"run={tiny_run}", "n=2", f"size={given}", "out=again", "batch_size=1", *ON_CPU)
    assert Path("drawn/000001.png").read_bytes() == Path("again/000001.png").read_bytes()


def test_sizes_that_cannot_be_are_one_line(tiny_run: Path, tmp_path: Path) -> None:
    line = mistake("sample", f"run={tiny_run}", "n=1", "size=[16,25]", "out=drawn", *ON_CPU)
    assert "size=[16, 25]: this model draws multiples of 2 pixels: set size=[16, 24]" in line
    Image.new("RGB", (16, 16)).save(tmp_path / "one.png")
    images = f"images={tmp_path / 'one.png'}"
    line = mistake("sample", f"run={tiny_run}", "n=1", "size=[16,24]", images, "start=0.5", "out=drawn", *ON_CPU)
    assert "reads image, which is square" in line
    line = mistake("sample", f"run={tiny_run}", "n=1", "size=24", images, "start=0.5", "out=drawn", *ON_CPU)
    assert "holds 16x16 images; this model takes 24x24 as image" in line
    line = mistake("sample", f"run={tiny_run}", "n=1", "trajectory=2", "preview=linear", "out=drawn", *ON_CPU)
    assert "preview=linear is for models of latents" in line
    line = mistake("sample", f"run={tiny_run}", "n=1", "preview=linear", "out=drawn", *ON_CPU)
    assert "preview=linear has no effect without a trajectory" in line
    line = mistake("sample", f"run={tiny_run}", "n=1", "negative_prompts=[a]", "out=drawn", *ON_CPU)
    assert "negative_prompts: this model reads no caption" in line
