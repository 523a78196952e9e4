"""Loads stored models: a run directory, an exported folder, or a training checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from difflab.checkpoints import newest_checkpoint
from difflab.config.guidance import Weights
from difflab.config.init import WeightsInitConfig
from difflab.config.model import ModelConfig
from difflab.config.stored import read_train_config
from difflab.config.train import TrainConfig
from difflab.errors import UserError
from difflab.interop.keymap import refuse_misfit, shapes_of
from difflab.interop.layouts import marked_layouts
from difflab.interop.native import CONFIG, WEIGHTS, exported_model, load_export
from difflab.interop.opening import program_of
from difflab.interop.unpickle import read_content, read_tensors
from difflab.interop.unwrapping import read_weights
from difflab.near import near_path
from difflab.parts.loading import load_frozen
from difflab.parts.selection import frozen_state, is_inside, written
from difflab.parts.starting import start_from
from difflab.tasks.build import Model, build_model


@dataclass(frozen=True)
class Stored:
    """The location and configuration of a stored model.

    weights: the file; which: whether those are averaged or raw (an export does not say: it counts as averaged).
    run_dir: the run it belongs to, or None for an export. train: its full training configuration, if known.
    takes_raw: the option that takes raw weights, for error messages.
    """

    path: Path
    config: ModelConfig
    weights: Path
    which: Literal["ema", "raw"] = "ema"
    run_dir: Path | None = None
    train: TrainConfig | None = None
    takes_raw: str = "weights=raw"

    @property
    def home(self) -> Path:
        """The folder of the model: its run directory, or its exported folder."""
        return self.run_dir or self.path


def find_stored(path: str | Path, which: Weights = "ema", key: str = "run") -> Stored:
    """Identifies the model at a path without reading weights.

    key: the option with which the path was given, for error messages.
    Raises UserError in one line if there is nothing there, or nothing usable.
    """
    path, takes_raw = Path(path), "init.which=raw" if key == "init.from" else "weights=raw"
    if not path.exists():
        what = "give a run directory, an exported folder or a checkpoint"
        raise UserError(f"{key}={path} does not exist: {what}{near_path(path)}")
    if path.is_file():
        run_dir = path.parent.parent
        if path.suffix != ".ckpt" or not (run_dir / "config.yaml").is_file():
            _refuse_part(path, key)
            raise UserError(f"{key}={path} is not a checkpoint inside a run directory; {_how_to_import(path, key)}")
        train = read_train_config(run_dir / "config.yaml")
        kept = "raw" if which == "auto" and not train.callbacks.averages else which
        return Stored(path, train.model(), path, "raw" if kept == "raw" else "ema", run_dir, train, takes_raw)
    if (path / "config.yaml").is_file():
        train = read_train_config(path / "config.yaml")
        weights, kept = _weights_of_run(path, which, train.callbacks.averages, takes_raw)
        return Stored(path, train.model(), weights, kept, path, train, takes_raw)
    if (program := program_of(path)) is not None:
        raise UserError(f"{key}={path} is a folder of {program}, not of difflab; {_how_to_import(path, key)}")
    if not (path / WEIGHTS).is_file():
        _refuse_part(path, key)
    if (path / "config.json").is_file():
        return Stored(path, exported_model(path), path / WEIGHTS)
    raise UserError(f"{key}={path} is neither a run directory (config.yaml) nor an exported folder (config.json)")


def _refuse_part(path: Path, key: str) -> None:
    """Raises UserError for a path inside a run or an exported folder that is only a part of it."""
    parents = path.absolute().parents[:2]
    run = next((p for p in parents if (p / "config.yaml").is_file() and (p / "checkpoints").is_dir()), None)
    export = path.parent if path.name in (WEIGHTS, CONFIG) and (path.parent / WEIGHTS).is_file() else None
    whole = export or run
    if whole is not None:
        # As the user wrote it, if possible.
        shown = next((p for p in path.parents if p.absolute() == whole.absolute()), whole)
        raise UserError(f"{key}={path} is a part of {shown}: give {key}={shown}")


def _how_to_import(path: Path, key: str) -> str:
    preset = "" if program_of(path) is not None else " --preset EXPERIMENT"
    command = f"difflab weights import {path}{preset} --out FOLDER"
    return f"make it one with `difflab weights import` first, as in `{command}`, and give {key}=FOLDER"


def weights_of_run(path: Path) -> Path | None:
    """The weights file with which a run directory samples; None if the path is no run directory."""
    return _weights_of_run(path, "auto", True)[0] if (path / "config.yaml").is_file() else None


def _weights_of_run(
    run_dir: Path, which: Weights, averages: bool, takes_raw: str = "weights=raw"
) -> tuple[Path, Literal["ema", "raw"]]:
    """averages: whether the run keeps an EMA now; files from a time when it did otherwise are out of date."""
    averaged, exported = (run_dir / "weights" / f"{name}.safetensors" for name in ("ema", "raw"))
    if which == "ema" or (which == "auto" and averages and averaged.is_file()):
        weights, kept = averaged, "ema"
    else:
        # A run without averages exports its raw weights; otherwise they are in the checkpoint.
        current = exported.is_file() and not (averages and averaged.is_file())
        checkpoints = run_dir / "checkpoints"
        weights = exported if current else newest_checkpoint(checkpoints) or checkpoints / "last.ckpt"
        kept = "raw"
    if not weights.is_file():
        no_averages = which == "ema" and exported.is_file()
        hint = f"; the run keeps no averages: take {takes_raw}" if no_averages else ""
        raise UserError(f"{run_dir} has no {kept} weights yet ({weights.relative_to(run_dir)} is not there){hint}")
    return weights, "ema" if kept == "ema" else "raw"


def load_weights(stored: Stored) -> dict[str, Tensor]:
    """The state dict under `network.*` and `conditioners.*`, on the CPU."""
    if stored.run_dir is None:
        return load_export(stored.path)[0]
    if stored.weights.suffix != ".ckpt":
        return read_tensors(stored.weights)
    checkpoint = read_checkpoint(stored.weights)
    for_training = checkpoint["difflab"].get("training_only", ())
    state = {name: tensor for name, tensor in checkpoint["state_dict"].items() if not is_inside(name, for_training)}
    if stored.which == "ema":
        averages = checkpoint.get("callbacks", {}).get("EMA", {}).get("averages")
        if not averages:
            raise UserError(f"{stored.weights} keeps no average; use {stored.takes_raw}")
        state.update(averages)
    return state


def load_whole_weights(stored: Stored) -> dict[str, Tensor]:
    """The same including the tensors of frozen parts, for layouts of other programs, which store those themselves."""
    with torch.device("meta"):
        model = build_model(stored.config).as_module()
    load_frozen(model)
    return load_weights(stored) | frozen_state(model)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A training checkpoint as plain containers; its tensors are read from the file when they are used.

    Raises UserError if the file is not one.
    """
    _, content = read_content(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(k), dict) for k in ("difflab", "state_dict")):
        raise UserError(f"{path} is not a training checkpoint of difflab; give a .ckpt file of a run's checkpoints/")
    return content


def load_stored(path: str | Path, which: Weights = "ema", device: torch.device | str = "cpu") -> tuple[Model, Stored]:
    """The model with its weights on `device`, in evaluation mode.

    Raises UserError naming the first differing keys if weights and configuration do not fit.
    """
    stored = find_stored(path, which)
    state = load_weights(stored)
    # Initial weights would only be overwritten.
    with torch.device("meta"):
        model = build_model(stored.config)
    refuse_misfit(state, shapes_of(written(model.as_module())), str(stored.weights))
    model.load({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    load_frozen(model.as_module())
    model.as_module().to(device).eval().requires_grad_(False)
    return model, stored


def model_of_source(init: WeightsInitConfig) -> ModelConfig | None:
    """The model that initial weights are from, None for a weights file. Raises UserError like `find_stored`."""
    source = Path(init.source)
    return None if _is_weights_file(source) else find_stored(source, init.which, "init.from").config


def _is_weights_file(source: Path) -> bool:
    return source.is_file() and source.suffix != ".ckpt"


def load_initial_weights(module: nn.Module, init: WeightsInitConfig) -> list[str]:
    """Initializes `module` (with `network.*` and `conditioners.*`) from a stored model or a weights file.

    Returns lines that describe every deviation from a plain copy. Raises UserError naming the first differing keys if
    they do not fit.
    """
    source = Path(init.source)
    if _is_weights_file(source):
        state = read_weights(source).state
        if layouts := marked_layouts(state):
            raise UserError(
                f"init.from={source} is in the layout {' or '.join(layout.name for layout in layouts)}, not in "
                f"difflab's; {_how_to_import(source, 'init.from')}"
            )
    else:
        state = load_weights(find_stored(source, init.which, "init.from"))
    return start_from(module, state, str(source), init)


def refuse_other_use(said: str, stored: Mapping[str, Any], untold: Mapping[str, Any]) -> None:
    """Raises UserError if the weights of a stored model would be used in another way than they were trained.

    said: where they come from. stored, untold: of the two models, `ModelConfig.untold`.
    """
    for key, value in untold.items():
        if key in stored and stored[key] != value:
            raise UserError(
                f"{said} was trained with {key}={stored[key]}, but this run has {value}: weights belong to "
                f"the {key} that they were trained with"
            )
