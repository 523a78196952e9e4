from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from difflab.config.init import WeightsInitConfig
from difflab.config.stored import read_train_config
from difflab.errors import UserError
from difflab.interop.native import save_export
from difflab.pipelines.stored import (
    find_stored,
    load_initial_weights,
    load_stored,
    load_weights,
    read_checkpoint,
)

MISFIT = "is of another architecture: network.time_embed.linear1.weight is [128, 32], expected [256, 64]; "


def starting(module: nn.Module, path: Path | str, **options: Any) -> list[str]:
    return load_initial_weights(module, WeightsInitConfig(**{"kind": "weights", "from": str(path), **options}))


def state_of(model) -> dict[str, Tensor]:
    return model.as_module().state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def exported(run: Path, folder: Path) -> Path:
    stored = find_stored(run)
    save_export(folder, load_weights(stored), stored.config.model_dump(mode="json"))
    return folder


def one_line(path: Path, which="ema") -> str:
    with pytest.raises(UserError) as error:
        load_stored(path, which)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_run_gives_its_averaged_weights(tiny_run: Path) -> None:
    model, stored = load_stored(tiny_run)
    assert same(state_of(model), load_file(tiny_run / "weights" / "ema.safetensors"))
    assert stored.run_dir == tiny_run
    assert stored.train is not None
    assert stored.config == stored.train.model()
    assert not model.network.training
    assert not any(p.requires_grad for p in model.as_module().parameters())


def test_raw_weights_are_those_of_the_last_checkpoint(tiny_run: Path) -> None:
    raw = state_of(load_stored(tiny_run, "raw")[0])
    checkpoint = torch.load(tiny_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(torch.equal(raw[key], checkpoint["state_dict"][key]) for key in raw)
    assert not same(raw, state_of(load_stored(tiny_run)[0]))


def test_what_a_checkpoint_keeps_for_training_alone_is_not_asked_for(own_run: Path) -> None:
    """A discriminator, say."""
    path = own_run / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["state_dict"]["discriminator.0.weight"] = torch.ones(2)
    content["difflab"]["training_only"] = ["discriminator"]
    torch.save(content, path)
    for which in ("ema", "raw"):
        state = load_weights(find_stored(path, which))
        assert state.keys() == content["state_dict"].keys() - {"discriminator.0.weight"}
        assert same(state_of(load_stored(path, which)[0]), state)


def test_raw_weights_of_a_run_that_was_killed_are_those_of_its_newest_checkpoint(own_run: Path) -> None:
    checkpoints = own_run / "checkpoints"
    (checkpoints / "last.ckpt").unlink()
    newest = torch.load(checkpoints / "step-000003.ckpt", weights_only=True)
    newest["state_dict"] = {key: torch.full_like(value, 7) for key, value in newest["state_dict"].items()}
    torch.save(newest, checkpoints / "step-1000000.ckpt")
    assert find_stored(own_run, "raw").weights == checkpoints / "step-1000000.ckpt"
    assert all((value == 7).all() for value in state_of(load_stored(own_run, "raw")[0]).values())


def without_averages(run: Path) -> dict[str, Tensor]:
    """Make of a run one that was trained without averages; returns its weights."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["callbacks"]["ema"] = None
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    raw = {key: value + 1 for key, value in load_file(run / "weights" / "ema.safetensors").items()}
    save_file(raw, run / "weights" / "raw.safetensors")
    return raw


@pytest.mark.parametrize("which", ["raw", "auto"])
@pytest.mark.parametrize("stale", [False, True])
def test_a_run_without_averages_gives_the_raw_weights_that_it_exports(own_run: Path, which, stale: bool) -> None:
    """Also where it kept averages before it went on without, and their file is still there."""
    raw = without_averages(own_run)
    if not stale:
        (own_run / "weights" / "ema.safetensors").unlink()
    model, stored = load_stored(own_run, which)
    assert (stored.which, stored.weights) == ("raw", own_run / "weights" / "raw.safetensors")
    assert same(state_of(model), raw)


def test_averages_of_a_run_without_them_name_the_way_out(own_run: Path) -> None:
    without_averages(own_run)
    (own_run / "weights" / "ema.safetensors").unlink()
    assert one_line(own_run).endswith(
        "(weights/ema.safetensors is not there); the run keeps no averages: take weights=raw"
    )


def test_who_begins_with_averages_that_are_not_there_is_told_the_option_of_init(own_run: Path) -> None:
    without_averages(own_run)
    (own_run / "weights" / "ema.safetensors").unlink()
    with pytest.raises(UserError, match=r"the run keeps no averages: take init\.which=raw$"):
        find_stored(own_run, "ema", "init.from")


def test_raw_weights_that_an_earlier_part_of_the_run_exported_are_out_of_date(own_run: Path) -> None:
    shutil.copy(own_run / "weights" / "ema.safetensors", own_run / "weights" / "raw.safetensors")
    assert find_stored(own_run, "raw").weights == own_run / "checkpoints" / "last.ckpt"


def test_a_checkpoint_of_a_run_without_averages_is_raw(own_run: Path) -> None:
    without_averages(own_run)
    path = own_run / "checkpoints" / "last.ckpt"
    assert [find_stored(path, which).which for which in ("auto", "raw", "ema")] == ["raw", "raw", "ema"]


@pytest.mark.parametrize("part", ["weights/ema.safetensors", "weights", "checkpoints", "config.yaml"])
def test_a_part_of_a_run_names_the_run(own_run: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert one_line(own_run / part) == f"run={own_run / part} is a part of {own_run}: give run={own_run}"
    monkeypatch.chdir(own_run.parent)
    assert one_line(Path(own_run.name) / part).endswith(f" is a part of {own_run.name}: give run={own_run.name}")


def test_an_export_inside_of_a_run_is_a_model_and_its_parts_are_not(own_run: Path) -> None:
    model, stored = load_stored(own_run)
    folder = own_run / "exported"
    save_export(folder, state_of(model), stored.config.model_dump(mode="json"))
    assert find_stored(folder).path == folder
    for part in ("model.safetensors", "config.json"):
        assert one_line(folder / part).endswith(f"is a part of {folder}: give run={folder}")


@pytest.mark.parametrize("kept", [0, 500, -100])
def test_a_damaged_checkpoint_is_named(own_run: Path, kept: int) -> None:
    path = own_run / "checkpoints" / "last.ckpt"
    content = path.read_bytes()[:kept]
    path.unlink()
    path.write_bytes(content)
    for name in (own_run, path):
        assert str(path) in one_line(name, "raw")


@pytest.mark.parametrize("content", [{"epoch": 1}, [1], {"difflab": {}, "state_dict": 3}, {"state_dict": {}}])
def test_a_checkpoint_of_another_program_is_named(own_run: Path, content: Any) -> None:
    path = own_run / "checkpoints" / "other.ckpt"
    torch.save(content, path)
    assert one_line(path, "raw").startswith(f"{path} is not a training checkpoint of difflab")
    with pytest.raises(UserError, match="is not a training checkpoint of difflab"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\x00", b"[" * 5000, b"a: !!python/object:os.system x"])
def test_a_damaged_configuration_is_named(own_run: Path, content: bytes) -> None:
    (own_run / "config.yaml").write_bytes(content)
    line = one_line(own_run)
    assert line.startswith(f"{own_run / 'config.yaml'}")
    assert "cannot be read as YAML; restore it from a copy" in line


FOREIGN = {
    "pipeline": ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors"],
    "flat": ["config.json", "scheduler_config.json", "diffusion_pytorch_model.bin"],
    "network": ["config.json", "diffusion_pytorch_model.safetensors.index.json"],
    "configuration": ["config.json"],
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("key", ["run", "init.from"])
def test_a_folder_of_diffusers_names_the_command_that_imports_it(tmp_path: Path, kind: str, key: str) -> None:
    folder = tmp_path / "theirs"
    for name in FOREIGN[kind]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"_class_name": "UNet2DModel"}')
    load = find_stored if key == "run" else partial(starting, torch.nn.Linear(1, 1))
    with pytest.raises(UserError) as error:
        load(str(folder))
    assert str(error.value).startswith(f"{key}={folder} is a folder of diffusers, not of difflab; ")
    assert f"`difflab weights import {folder} --out FOLDER`" in str(error.value)


def test_official_weights_name_the_command_that_imports_them(tmp_path: Path, tiny_run: Path) -> None:
    path = tmp_path / "official.pt"
    torch.save({"input_blocks.0.0.weight": torch.ones(2, 3, 3, 3)}, path)
    assert f"`difflab weights import {path} --preset EXPERIMENT --out FOLDER`" in one_line(path)
    module = load_stored(tiny_run)[0].as_module()
    with pytest.raises(UserError, match=r"official\.pt is in the layout guided or guided-new-order, not in difflab's"):
        starting(module, path)


def test_a_checkpoint_gives_both(tiny_run: Path) -> None:
    path = tiny_run / "checkpoints" / "step-000003.ckpt"
    averaged, stored = load_stored(path)
    assert (stored.run_dir, stored.weights) == (tiny_run, path)
    assert same(state_of(averaged), state_of(load_stored(tiny_run)[0]))
    assert same(state_of(load_stored(path, "raw")[0]), state_of(load_stored(tiny_run, "raw")[0]))


def test_an_export_is_the_same_model_without_its_run(tiny_run: Path, tmp_path: Path) -> None:
    model, stored = load_stored(exported(tiny_run, tmp_path / "export"))
    original, of_run = load_stored(tiny_run)
    assert same(state_of(model), state_of(original))
    assert (stored.run_dir, stored.train) == (None, None)
    assert stored.config == of_run.config


def test_conditioners_are_stored_too(class_run: Path, tmp_path: Path) -> None:
    model, _ = load_stored(exported(class_run, tmp_path / "export"))
    assert state_of(model)["conditioners.class_label.embedding.weight"].shape[0] == 6
    assert same(state_of(model), state_of(load_stored(class_run)[0]))


def test_nothing_is_read_while_looking(own_run: Path) -> None:
    (own_run / "weights" / "ema.safetensors").write_bytes(b"not weights")
    assert find_stored(own_run).weights == own_run / "weights" / "ema.safetensors"


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    assert one_line(tmp_path / "nowhere").startswith(f"run={tmp_path / 'nowhere'} does not exist")
    (tmp_path / "photos").mkdir()
    assert one_line(tmp_path / "photo").endswith(f"or a checkpoint; did you mean {tmp_path / 'photos'}?")
    assert "neither a run directory (config.yaml) nor an exported folder" in one_line(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"")
    assert "`difflab weights import` first" in one_line(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(("which", "file"), [("ema", "weights/ema.safetensors"), ("raw", "checkpoints/last.ckpt")])
def test_weights_that_are_missing_are_named(own_run: Path, which: str, file: str) -> None:
    for path in (own_run / file).parent.iterdir():
        path.unlink()
    assert one_line(own_run, which) == f"{own_run} has no {which} weights yet ({file} is not there)"


def test_a_checkpoint_without_an_average_names_the_way_out(own_run: Path) -> None:
    path = own_run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"].pop("EMA")
    torch.save(checkpoint, path)
    assert one_line(path).endswith("keeps no average; use weights=raw")
    load_stored(path, "raw")


@pytest.mark.parametrize("place", ["run", "checkpoint"])
def test_weights_of_another_architecture_name_the_first_keys(own_run: Path, place: str) -> None:
    config = yaml.safe_load((own_run / "config.yaml").read_text())
    config["network"]["base_channels"] = 64
    (own_run / "config.yaml").write_text(yaml.safe_dump(config))
    message = one_line(own_run if place == "run" else own_run / "checkpoints" / "last.ckpt")
    assert MISFIT in message
    assert message.endswith(" more")


def test_an_export_with_another_configuration_is_refused_too(tiny_run: Path, tmp_path: Path) -> None:
    stored = find_stored(tiny_run)
    wider = stored.config.network.model_copy(update={"base_channels": 64})
    config = stored.config.model_copy(update={"network": wider})
    save_export(tmp_path / "export", load_weights(stored), config.model_dump(mode="json"))
    assert MISFIT in one_line(tmp_path / "export")


def test_damaged_weights_are_named(own_run: Path) -> None:
    path = own_run / "weights" / "ema.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in one_line(own_run)


def test_an_export_that_was_changed_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    folder = exported(tiny_run, tmp_path / "export")
    state = load_file(folder / "model.safetensors")
    save_file({key: value + 1 for key, value in state.items()}, folder / "model.safetensors", {"format": "pt"})
    assert "export again" in one_line(folder)


def test_a_configuration_from_another_version_is_named(own_run: Path) -> None:
    config = yaml.safe_load((own_run / "config.yaml").read_text())
    config["network"]["wings"] = 2
    (own_run / "config.yaml").write_text(yaml.safe_dump(config))
    line = one_line(own_run)
    assert line.startswith(f"{own_run / 'config.yaml'}, written by another version of difflab or changed since")
    assert "unknown key 'network.wings'" in line
    (own_run / "config.yaml").write_text("- 1\n")
    assert "is not a configuration" in one_line(own_run)


def test_an_export_of_another_version_is_named(tiny_run: Path, tmp_path: Path) -> None:
    save_export(tmp_path / "export", {}, {"task": "denoising", "wings": 2})
    assert one_line(tmp_path / "export").startswith(f"{tmp_path / 'export' / 'config.json'}: unknown key 'wings'")


def test_a_run_keeps_its_whole_configuration(tiny_run: Path) -> None:
    config = read_train_config(tiny_run / "config.yaml")
    assert (config.experiment, config.name) == ("ddpm/shapes32", "plain")
    assert config.sampler.steps == 5


@pytest.mark.parametrize("source", ["run", "file", "checkpoint"])
def test_training_may_start_from_stored_weights(tiny_run: Path, class_run: Path, source: str) -> None:
    path = {
        "run": tiny_run,
        "file": tiny_run / "weights" / "ema.safetensors",
        "checkpoint": tiny_run / "checkpoints" / "last.ckpt",
    }[source]
    model, _ = load_stored(tiny_run)
    expected = {key: value.clone() for key, value in state_of(model).items()}
    module = model.as_module()
    for parameter in module.parameters():
        parameter.data.zero_()
    starting(module, path)
    assert same(module.state_dict(), expected)
    other = load_stored(class_run)[0].as_module()
    with pytest.raises(UserError, match=r"conditioners\.class_label\.embedding\.weight"):
        starting(other, path)


@pytest.mark.parametrize("which", ["ema", "raw"])
def test_training_starts_from_the_weights_that_are_asked_for(tiny_run: Path, which: Any) -> None:
    expected = {key: value.clone() for key, value in state_of(load_stored(tiny_run, which)[0]).items()}
    for path in (tiny_run, tiny_run / "checkpoints" / "last.ckpt"):
        module = load_stored(tiny_run)[0].as_module()
        for parameter in module.parameters():
            parameter.data.zero_()
        starting(module, path, which=which)
        assert same(module.state_dict(), expected)


def test_a_run_may_be_moved(own_run: Path, tiny_run: Path, tmp_path: Path) -> None:
    moved = shutil.move(own_run, tmp_path / "elsewhere" / "run")
    assert same(state_of(load_stored(moved)[0]), state_of(load_stored(tiny_run)[0]))
