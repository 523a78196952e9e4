"""Import and export of weights: official formats -> ours, ours -> official formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from difflab.config.model import DrawingModelConfig, ModelConfig
from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.diffusers_folder import PIPELINE, diffusers_files, save_diffusers
from difflab.interop.diffusers_sampling import how_to_draw
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.identifying import fits_phrase
from difflab.interop.keymap import KeyMap
from difflab.interop.layout import Layout, Target
from difflab.interop.layouts import LAYOUTS, NATIVE, is_ours, layout_named, marked_layouts
from difflab.interop.opening import described_by_folder, open_weights
from difflab.interop.presets import preset_named
from difflab.interop.tensor_files import write_safetensors, write_torch

_ONE_FILE = {".safetensors": write_safetensors, ".pt": write_torch, ".pth": write_torch}
"""File suffix -> the function that writes all weights to it."""
_RUN = "config.yaml"
_OTHER = "a model in another layout"


@dataclass(frozen=True)
class Imported:
    """Weights under our keys (`network.*`, `conditioners.*`), the model they are for, and how they were read."""

    state: dict[str, Tensor]
    target: Target
    layout: str
    notes: tuple[str, ...]


def import_weights(
    path: str | Path,
    target: Target | str | None = None,
    layout: str | None = None,
    wrapper: str | None = None,
    published_in: Sequence[str] = (),
) -> Imported:
    """Reads official weights as ours.

    target: the model they are for: the name of a published one ("ddpm/cifar10") or any other. Optional if the folder
            describes it (diffusers' config.json); if given, it must agree with that description.
    layout: one of LAYOUTS; None selects the one whose keys the file has.
    published_in: the layouts in which the model was published. They decide if the keys do not: the two orders of
            attention in the guided layouts have the same keys. A published target brings its own.
    Raises UserError naming the first keys that differ and the published models that the file would fit.
    """
    path = Path(path)
    if isinstance(target, str):
        preset = preset_named(target)
        target, published_in = preset.target(), preset.layouts
    found = open_weights(path, wrapper)
    if is_ours(found.state):
        raise UserError(f"{path}: these are difflab's own weights; give the run, or its exported folder, as it is")
    described = described_by_folder(path)
    if described is not None and target is not None:
        _require_agreement(path, described, target)
    target = target or described
    if target is None:
        raise UserError(
            f"{path}: name the experiment that these weights are of, as in --preset ddpm/cifar10; only a folder with "
            f"the config.json of diffusers says it itself{fits_phrase(found.state)}"
        )
    chosen = _choose_layout(path, found.state, layout, published_in)
    try:
        keymap = _keymap(chosen, target, () if layout else published_in)
        state = keymap.from_official(found.state)
    except UserError as error:
        raise UserError(f"{path}: {error}{fits_phrase(found.state)}") from error
    notes = layout_named(keymap.layout).compare_tables(found.beside, target)
    return Imported(state, target, keymap.layout, (*found.notes, *notes))


def check_export(path: str | Path, config: ModelConfig, layout: str) -> list[str]:
    """Checks that a whole model can be written to `path` in a layout, before its weights are read; returns remarks.

    Raises UserError if the layout cannot represent the model, and for a path that it cannot be written to.
    """
    path = Path(path)
    if layout == NATIVE:
        _refuse_other_model(path, NATIVE)
        return []
    target = Target.of(config)
    layout_named(layout).keymap(target)
    if layout == DIFFUSERS.name:
        drawing = _drawing(config)
        diffusers_files(target, drawing)
        _refuse_other_model(path, layout)
        return how_to_draw(drawing, str(path))
    if path.suffix not in _ONE_FILE:
        raise UserError(f"{path}: end the name in .safetensors or .pt")
    if path.is_dir():
        raise UserError(f"{path}: a folder, where layout {layout} writes a file; give another name")
    return []


def export_model(path: str | Path, state: Mapping[str, Tensor], config: ModelConfig, layout: str) -> list[Path]:
    """Writes a whole model: as our own folder (layout `difflab`), or like `export_weights`; returns the files written.

    Layout `diffusers` includes the process, so that the folder is a pipeline. A folder appears completely or not at
    all.
    Raises the errors of `check_export`.
    """
    path = Path(path)
    check_export(path, config, layout)
    if layout == NATIVE:
        native.save_export(path, state, config.model_dump(mode="json"))
        return [path / native.CONFIG, path / native.WEIGHTS]
    if layout == DIFFUSERS.name:
        return save_diffusers(path, state, Target.of(config), _drawing(config))
    return export_weights(path, state, Target.of(config), layout)


def _drawing(config: ModelConfig) -> DrawingModelConfig:
    if not isinstance(config, DrawingModelConfig):
        raise UserError(f"diffusers has no pipeline that draws with {config.title}")
    return config


def _refuse_other_model(path: Path, layout: str) -> None:
    """Files of two layouts in one folder would be taken for one model; files of others are not overwritten."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: a file, where layout {layout} writes a folder; give another name")
    described = (path / native.CONFIG).is_file()
    others = {_RUN: "a run", "diffusion_pytorch_model*": _OTHER, PIPELINE: _OTHER}
    if layout != NATIVE:
        others = {_RUN: "a run", native.WEIGHTS: _OTHER, **({} if described else {PIPELINE: _OTHER})}
    for pattern, what in others.items():
        for file in path.glob(pattern):
            raise UserError(f"{path}: holds {file.name}, {what}; give another folder")
    if described and ("difflab" if layout == NATIVE else "_class_name") not in _content_of(path / native.CONFIG):
        raise UserError(f"{path}: holds a {native.CONFIG} that difflab did not write; give another folder")


def _content_of(path: Path) -> Mapping[str, object]:
    try:
        return native.read_json(path)
    except UserError:
        return {}


def export_weights(path: str | Path, state: Mapping[str, Tensor], target: Target, layout: str) -> list[Path]:
    """Converts our weights to an official layout; returns the files written.

    `diffusers` writes a folder that `UNet2DModel.from_pretrained` loads; the others write one file, as safetensors or,
    if the path ends in .pt or .pth, by torch.save. Raises UserError if the layout cannot represent the model.
    """
    path = Path(path)
    if layout == DIFFUSERS.name:
        return save_diffusers(path, state, target)
    known = layout_named(layout)
    official = known.file_of(known.keymap(target).to_official(state), target)
    write = _ONE_FILE.get(path.suffix)
    if write is None:
        raise UserError(f"{path}: end the name in .safetensors or .pt")
    write(path, official)
    return [path]


def _require_agreement(path: Path, described: Target, target: Target) -> None:
    ours, theirs = target.architecture(), described.architecture()
    for key, value in ours.items():
        if theirs.get(key) != value:
            raise UserError(
                f"{path / native.CONFIG}: its {key} is {json.dumps(theirs.get(key))}, "
                f"but the requested model has {json.dumps(value)}"
            )


def _keymap(layout: Layout, target: Target, published_in: Sequence[str]) -> KeyMap:
    """The map of the file's layout; if that has no such model, of the model's own, which shows the differing keys."""
    try:
        return layout.keymap(target)
    except UserError:
        if not published_in or layout.name in published_in:
            raise
        return layout_named(published_in[0]).keymap(target)


def _choose_layout(path: Path, state: Mapping[str, Tensor], name: str | None, published_in: Sequence[str]) -> Layout:
    if name is not None:
        return layout_named(name)
    marked = marked_layouts(state)
    if not marked:
        raise UserError(f"{path}: in no known layout (first key {next(iter(state))!r}); known are {', '.join(LAYOUTS)}")
    if len(marked) == 1:
        return marked[0]
    published = [layout for layout in marked if layout.name in published_in]
    if published_in:
        # For a model published in neither, its own layout shows which keys differ.
        return published[0] if len(published) == 1 else layout_named(published_in[0])
    names = " and ".join(layout.name for layout in marked)
    raise UserError(f"{path}: the keys fit both {names}; give the layout, as in --layout {marked[0].name}")
