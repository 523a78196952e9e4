"""A run with a part whose weights lie elsewhere: trained, written, gone on with, drawn from, without a copy of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

import pytest
import torch
import yaml

from choices import add_choices
from command_line import Done, run_difflab, tiny_training
from difflab.config.axes import CONDITIONERS
from difflab.config.parts import FrozenConfig
from difflab.interop.native import load_export
from difflab.networks import frozen
from parts.frozen_conditioner import KIND, write_encoder
from run_files import assert_same_run, checkpoint, exported, find_run

OWN = {"conditioners.told.projection.weight", "conditioners.told.projection.bias"}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrozenConfig:
    """The encoder of the trainings; until the test ends there is a kind of conditioner that has one."""
    add_choices(monkeypatch, CONDITIONERS, KIND)
    monkeypatch.setattr(frozen, "_LOADED", WeakValueDictionary())
    return write_encoder(tmp_path / "encoders" / "encoder.safetensors")


@pytest.fixture
def train(source: FrozenConfig, tiny_shapes: Path) -> Callable[..., Done]:
    """train(root, *overrides): a training that is told by the encoder. Its hash is not given, but found."""

    def start(root: Path, *overrides: str, path: str | None = source.path) -> Done:
        root.mkdir(exist_ok=True)
        told = f"+conditioning.told={{kind: frozen_class, encoder: {{path: {path}}}}}"
        return run_difflab(tiny_training(tiny_shapes, "data.classes=6", told, *overrides), root)

    return start


def recorded(run: Path) -> dict[str, str]:
    return yaml.safe_load((run / "config.yaml").read_text())["conditioning"]["told"]["encoder"]


def test_it_is_in_nothing_that_the_run_writes(source: FrozenConfig, train: Callable[..., Done], tmp_path: Path) -> None:
    assert train(tmp_path / "a", "trainer.max_steps=2", "optimizer.lr=1e-2").status == 0
    run = find_run(tmp_path / "a")
    assert recorded(run) == {"path": source.path, "package": None, "hub": None, "sha256": source.sha256}
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
    source: FrozenConfig, train: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path / "straight").status == 0
    assert train(tmp_path / "stopped", "trainer.max_steps=2").status == 0
    (tmp_path / "encoders").rename(tmp_path / "moved")
    told = f"+conditioning.told.encoder.sha256={source.sha256}"
    done = train(tmp_path / "stopped", told)
    assert done.status == 2
    assert "does not exist, and DIFFLAB_WEIGHTS names no folder" in done.last_error
    monkeypatch.setenv("DIFFLAB_WEIGHTS", str(tmp_path / "moved"))
    assert train(tmp_path / "stopped", told).status == 0
    run = find_run(tmp_path / "stopped")
    assert_same_run(run, find_run(tmp_path / "straight"))
    assert recorded(run)["path"] == str(tmp_path / "moved" / "encoder.safetensors")
    # Another file at the place that is named makes another run.
    done = train(tmp_path / "stopped", f"name={run.name}", path=write_encoder(tmp_path / "other.safetensors", 1).path)
    assert done.status == 2
    assert "conditioning.told.encoder.sha256 was" in done.last_error


def test_training_moves_what_is_around_it(train: Callable[..., Done], tmp_path: Path) -> None:
    options = ["init=weights", "optimizer.lr=1e-2", "trainer.max_steps=1"]
    assert train(tmp_path / "a", "trainer.max_steps=1").status == 0
    first = exported(find_run(tmp_path / "a"))
    done = train(
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
