"""A run with a part whose weights lie elsewhere: trained, written, gone on with, drawn from, without a copy of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from command_line import Done, run_difflab, tiny_training
from difflab.conditioning import build
from difflab.config.parts import FrozenConfig
from difflab.interop.native import load_export
from parts.frozen_conditioner import FrozenConditioner, write_encoder
from run_files import assert_same_run, checkpoint, exported, find_run

CLASSES = ["conditioning=class", "conditioning.class_label.classes=6"]
OWN = {"conditioners.class_label.projection.weight", "conditioners.class_label.projection.bias"}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrozenConfig:
    """Until the test ends every conditioner is one with this frozen encoder."""
    config = write_encoder(tmp_path / "encoders" / "encoder.safetensors")
    monkeypatch.setattr(build, "_build", lambda choice, width, size: FrozenConditioner(config, width))
    return config


def train(data: Path, root: Path, *overrides: str) -> Done:
    root.mkdir(exist_ok=True)
    return run_difflab(tiny_training(data, *CLASSES, *overrides), root)


def test_it_is_in_nothing_that_the_run_writes(source: FrozenConfig, tiny_shapes: Path, tmp_path: Path) -> None:
    assert train(tiny_shapes, tmp_path / "a", "trainer.max_steps=2", "optimizer.lr=1e-2").status == 0
    run = find_run(tmp_path / "a")
    saved, weights = checkpoint(run), exported(run)
    for state in (saved["state_dict"], saved["callbacks"]["EMA"]["averages"], weights):
        assert {name for name in state if name.startswith("conditioners.")} == OWN
    done = run_difflab(["weights", "export", str(run), "--out", str(tmp_path / "export")], tmp_path)
    assert done.status == 0, done.err
    assert {name for name in load_export(tmp_path / "export")[0] if name.startswith("conditioners.")} == OWN
    pictures = [tmp_path / "drawn", tmp_path / "drawn from the export"]
    for place, model in zip(pictures, (run, tmp_path / "export"), strict=True):
        done = run_difflab(["sample", f"run={model}", "n=2", "sampler.steps=2", f"out={place}"], tmp_path)
        assert done.status == 0, done.err
    ours, theirs = (sorted(place.glob("*.png")) for place in pictures)
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]
    # The very weights are asked for again.
    write_encoder(Path(str(source.path)), seed=1)
    done = run_difflab(["sample", f"run={run}", "n=2", "sampler.steps=2", f"out={tmp_path / 'other'}"], tmp_path)
    assert done.status == 2
    assert "the model was trained with" in done.last_error


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit_where_the_file_has_moved(
    source: FrozenConfig, tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tiny_shapes, tmp_path / "straight").status == 0
    assert train(tiny_shapes, tmp_path / "stopped", "trainer.max_steps=2").status == 0
    (tmp_path / "encoders").rename(tmp_path / "moved")
    done = train(tiny_shapes, tmp_path / "stopped")
    assert done.status == 2
    assert "does not exist, and DIFFLAB_WEIGHTS names no folder" in done.last_error
    monkeypatch.setenv("DIFFLAB_WEIGHTS", str(tmp_path / "moved"))
    assert train(tiny_shapes, tmp_path / "stopped").status == 0
    assert_same_run(find_run(tmp_path / "stopped"), find_run(tmp_path / "straight"))


def test_training_moves_what_is_around_it(source: FrozenConfig, tiny_shapes: Path, tmp_path: Path) -> None:
    options = ["init=weights", "optimizer.lr=1e-2", "trainer.max_steps=1"]
    assert train(tiny_shapes, tmp_path / "a", "trainer.max_steps=1").status == 0
    first = exported(find_run(tmp_path / "a"))
    done = train(
        tiny_shapes,
        tmp_path / "b",
        *options,
        f"init.from={find_run(tmp_path / 'a')}",
        "init.train=[conditioners.*]",
        "callbacks.ema=null",
    )
    assert done.status == 0, done.err
    state = checkpoint(find_run(tmp_path / "b"))["state_dict"]
    moved = {name for name in state if not torch.equal(state[name], first[name])}
    assert moved == OWN
