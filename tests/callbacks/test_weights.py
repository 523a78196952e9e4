from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import difflab
from callbacks.tiny import Tiny, loader, trainer
from difflab.callbacks.checkpoint import Checkpoint
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.ema import EMA
from difflab.callbacks.weights import WeightsExport, save_weights
from difflab.machine import MachineError
from difflab.tracking.csv import CSVLogger


def fit(root: Path, steps: int, callbacks: list[Any]) -> Tiny:
    model = Tiny()
    trainer(root, steps, callbacks, plugins=[AtomicCheckpointIO()]).fit(model, loader(20))
    return model


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_the_average_is_exported_with_its_configuration(tmp_path: Path) -> None:
    ema = EMA(0.9)
    model = fit(tmp_path, 3, [ema, WeightsExport(tmp_path / "weights", {"network": {"kind": "unet"}})])
    exported = load_file(tmp_path / "weights" / "ema.safetensors")
    assert exported.keys() == model.state_dict().keys()
    assert torch.equal(exported["network.weight"], ema.averages["network.weight"])
    assert torch.equal(exported["table"], model.table)
    expected = {"train_step": "3", "decay": "0.9", "difflab": difflab.__version__, "format": "pt"}
    assert metadata(tmp_path / "weights" / "ema.safetensors") == expected
    assert json.loads((tmp_path / "weights" / "config.json").read_text()) == {"network": {"kind": "unet"}}


def test_every_checkpoint_brings_weights_of_its_step(tmp_path: Path) -> None:
    seen = []

    class Watching(WeightsExport):
        def write(self, trainer: Any, pl_module: Any) -> None:
            super().write(trainer, pl_module)
            seen.append(int(metadata(self.dirpath / "ema.safetensors")["train_step"]))

    fit(tmp_path, 5, [EMA(0.9), Watching(tmp_path, {}), Checkpoint(tmp_path / "c", every_steps=2)])
    assert seen == [2, 4, 5, 5]


def test_a_run_without_an_average_exports_its_raw_weights(tmp_path: Path) -> None:
    model = fit(tmp_path, 2, [WeightsExport(tmp_path, {})])
    assert torch.equal(load_file(tmp_path / "raw.safetensors")["network.weight"], model.network.weight)
    assert not (tmp_path / "ema.safetensors").exists()


def test_tied_and_strided_tensors_are_written(tmp_path: Path) -> None:
    tied = torch.arange(6.0).view(2, 3)
    save_weights(tmp_path / "w.safetensors", {"a": tied, "b": tied, "c": tied.T}, {})
    loaded = load_file(tmp_path / "w.safetensors")
    assert torch.equal(loaded["a"], loaded["b"])
    assert torch.equal(loaded["c"], tied.T)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), "serialization"])
def test_a_full_disk_leaves_the_old_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    from safetensors import SafetensorError

    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(1)}, {})

    def full(*args: Any, **kwargs: Any) -> None:
        raise (
            error if isinstance(error, OSError) else SafetensorError("I/O error: No space left on device (os error 28)")
        )

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(MachineError, match="no space left to write"):
        save_weights(path, {"a": torch.zeros(1)}, {})
    assert load_file(path)["a"].item() == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_what_a_finished_run_owes_is_read_off_its_files(tmp_path: Path) -> None:
    mark = tmp_path / "wandb" / "artifact_step"
    export = WeightsExport(tmp_path / "weights", {}, mark)
    assert export.owes(2, at_end=False)
    trainer(tmp_path, 2, [EMA(0.5), export]).fit(Tiny(), loader(9))
    assert not export.owes(2, at_end=True), "no logger that keeps files, no mark"
    assert export.owes(3, at_end=False)
    mark.parent.mkdir()
    assert export.owes(2, at_end=True)
    assert not export.owes(2, at_end=False)
    trainer(tmp_path, 2, [EMA(0.5), export]).fit(Tiny(), loader(9))
    assert mark.read_text() == "2\n"
    assert not export.owes(2, at_end=True)
    (tmp_path / "weights" / "config.json").rename(tmp_path / "config.json")
    assert export.owes(2, at_end=False), "weights without their configuration are of no use"
    (tmp_path / "config.json").rename(tmp_path / "weights" / "config.json")
    (tmp_path / "weights" / "ema.safetensors").write_bytes(b"cut")
    assert export.owes(2, at_end=True)


class Dying(CSVLogger):
    """A logger that ends with the process while it takes a file."""

    def log_artifact(self, *_: Any, **__: Any) -> None:
        raise KeyboardInterrupt


def test_the_mark_is_written_when_the_loggers_have_the_weights(tmp_path: Path) -> None:
    """It decides whether they are handed over when the run is started again."""
    mark = tmp_path / "wandb" / "artifact_step"
    mark.parent.mkdir()
    export = WeightsExport(tmp_path / "weights", {}, mark)
    with pytest.raises(SystemExit):
        trainer(tmp_path, 2, [export], logger=Dying(tmp_path / "metrics.csv")).fit(Tiny(), loader(9))
    assert not mark.exists()
    assert not export.owes(2, at_end=False)
    assert export.owes(2, at_end=True)
