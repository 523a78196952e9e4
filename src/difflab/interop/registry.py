"""Import and export of weights: official formats -> ours, ours -> official formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from difflab.config.model import ModelConfig, NetworkModelConfig
from difflab.config.network import NetworkConfig
from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.autoencoder_folder import DIFFUSERS_AUTOENCODER_FOLDER
from difflab.interop.autoencoder_layout import DIFFUSERS_AUTOENCODER
from difflab.interop.clip_folder import (
    OPEN_CLIP_CUSTOM_FOLDER,
    OPEN_CLIP_FOLDER,
    TRANSFORMERS_FOLDER,
    clip_target,
)
from difflab.interop.clip_layout import OPEN_CLIP_CUSTOM, OPENAI_CLIP, TRANSFORMERS_CLIP
from difflab.interop.diffusers_folder import DIFFUSERS_FOLDER
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.folders import NATIVE_FOLDER, FolderFormat, refuse_other_model, save_folder
from difflab.interop.identifying import fits_phrase, fitting_presets
from difflab.interop.keymap import KeyMap, shapes_of
from difflab.interop.layout import Described, Layout, Target
from difflab.interop.layouts import LAYOUTS, NATIVE, is_ours, layout_for, layout_named, marked_layouts, part_of_a_model
from difflab.interop.opening import described_by_folder, open_weights
from difflab.interop.presets import preset_named
from difflab.interop.tensor_files import write_safetensors, write_torch

_ONE_FILE = {".safetensors": write_safetensors, ".pt": write_torch, ".pth": write_torch}
"""File suffix -> the function that writes all weights to it."""
_OURS = "{path}: these are difflab's own weights; give the run, or its exported folder, as it is"
_FOLDERS = {
    NATIVE: NATIVE_FOLDER,
    DIFFUSERS.name: DIFFUSERS_FOLDER,
    DIFFUSERS_AUTOENCODER.name: DIFFUSERS_AUTOENCODER_FOLDER,
    TRANSFORMERS_CLIP.name: TRANSFORMERS_FOLDER,
}
"""Layout -> the folder that it is written as."""
_FOLDERS_OR_FILES = {OPENAI_CLIP.name: OPEN_CLIP_FOLDER, OPEN_CLIP_CUSTOM.name: OPEN_CLIP_CUSTOM_FOLDER}
"""Layout -> the folder that it is written as where the path has no ending."""


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
        raise UserError(_OURS.format(path=path))
    described = _described_target(path)
    if described is not None and target is not None:
        _require_agreement(*described, target)
    target = target or (None if described is None else described[0])
    if target is None:
        raise UserError(_unnamed(path, found.state))
    chosen = _choose_layout(path, found.state, layout, published_in)
    _refuse_unknown_model(path, chosen, found.state)
    try:
        keymap = _keymap(chosen, target, () if layout else published_in)
        known = layout_named(keymap.layout)
        notes = [] if described is not None else known.untold(target)
        state = keymap.from_official(_widened(found.state, notes) if known.widened else found.state)
    except UserError as error:
        raise UserError(f"{path}: {error}{fits_phrase(found.state)}") from error
    notes += known.compare_tables(found.beside, target)
    return Imported(state, target, keymap.layout, (*found.notes, *notes))


def model_of_weights(
    path: str | Path, layout: str | None = None, wrapper: str | None = None, activation: str | None = None
) -> Described:
    """The whole model of weights beside which nothing says what they are, by their shapes and what the user says.

    Raises UserError for weights that take more to be known: the name of their experiment.
    """
    path = Path(path)
    found = open_weights(path, wrapper)
    if is_ours(found.state):
        raise UserError(_OURS.format(path=path))
    chosen = _choose_layout(path, found.state, layout, ())
    _refuse_unknown_model(path, chosen, found.state)
    name = path.resolve().name if path.is_dir() else path.stem
    try:
        described = chosen.model_of(shapes_of(found.state), name, activation)
        if described is not None:
            _refuse_other_than_published(Target.of(described.config), found.state)
    except UserError as error:
        raise UserError(f"{path}: {error}{fits_phrase(found.state)}") from error
    if described is None:
        raise UserError(_unnamed(path, found.state))
    return described


def check_export(path: str | Path, config: ModelConfig, layout: str) -> list[str]:
    """Checks that a whole model can be written to `path` in a layout, before its weights are read; returns remarks.

    Raises UserError if the layout cannot represent the model, and for a path that it cannot be written to.
    """
    path, layout = Path(path), _layout_of(config, layout)
    folder = _folder_of(path, layout)
    if layout != NATIVE:
        target = Target.of(config)
        _keymap_of_export(layout, target)
        if folder is not None:
            folder.described(target, config)
    if folder is not None:
        refuse_other_model(path, folder, (*_FOLDERS.values(), *_FOLDERS_OR_FILES.values()), layout)
        return folder.remarks(config, str(path))
    if path.suffix not in _ONE_FILE:
        raise UserError(_no_ending(path, layout))
    if path.is_dir():
        raise UserError(f"{path}: a folder, where layout {layout} writes a file; give another name")
    return layout_named(layout).not_in_file(config)


def export_model(path: str | Path, state: Mapping[str, Tensor], config: ModelConfig, layout: str) -> list[Path]:
    """Writes a whole model: as our own folder (layout `difflab`), or like `export_weights`; returns the files written.

    Folders of other programs include what describes the whole model, such as the process. A folder appears completely
    or not at all.
    Raises the errors of `check_export`.
    """
    path, layout = Path(path), _layout_of(config, layout)
    check_export(path, config, layout)
    if layout == NATIVE:
        native.save_export(path, state, config.model_dump(mode="json"))
        return [path / native.CONFIG, path / native.WEIGHTS]
    return _export(path, state, Target.of(config), layout, config)


def export_weights(path: str | Path, state: Mapping[str, Tensor], target: Target, layout: str) -> list[Path]:
    """Converts our weights to an official layout; returns the files written.

    `diffusers` (for UNets and autoencoders) and `transformers_clip` write a folder that those load, the layouts of
    open_clip too where the path has no ending; the others write one file, as safetensors or, if the path ends in .pt or
    .pth, by torch.save. Raises UserError if the layout cannot represent the model.
    """
    return _export(Path(path), state, target, _name_for(layout, target.network), None)


def _export(
    path: Path, state: Mapping[str, Tensor], target: Target, layout: str, config: ModelConfig | None
) -> list[Path]:
    known, folder = layout_named(layout), _folder_of(path, layout)
    official = _keymap_of_export(layout, target).to_official(state)
    if folder is not None:
        return save_folder(folder, path, official, target, config)
    write = _ONE_FILE.get(path.suffix)
    if write is None:
        raise UserError(_no_ending(path, layout))
    write(path, known.file_of(official, target))
    return [path]


def _keymap_of_export(layout: str, target: Target) -> KeyMap:
    known = layout_named(layout)
    if target.first_stage is not None:
        raise UserError(
            f"{known.code} has no place for the first stage of this model and the scale of its latents, without which "
            "nothing can be drawn: use layout difflab"
        )
    return known.keymap(target)


def _layout_of(config: ModelConfig, name: str) -> str:
    return _name_for(name, config.network) if isinstance(config, NetworkModelConfig) else name


def _name_for(name: str, network: NetworkConfig) -> str:
    """The name of the layout that a user means for a model of this network."""
    return name if name == NATIVE else layout_for(name, lambda layout: layout.takes(network)).name


def _folder_of(path: Path, layout: str) -> FolderFormat | None:
    """The folder that a layout is written as at a path; None where it is one file."""
    if layout in _FOLDERS_OR_FILES:
        return None if path.suffix else _FOLDERS_OR_FILES[layout]
    return _FOLDERS.get(layout)


def _no_ending(path: Path, layout: str) -> str:
    folder = ", or give a folder, without an ending" if layout in _FOLDERS_OR_FILES else ""
    return f"{path}: end the name in .safetensors or .pt{folder}"


def _described_target(path: Path) -> tuple[Target, Path] | None:
    """The model that a folder describes, or that of a weights file in one, and where it does."""
    target = described_by_folder(path)
    if target is not None:
        return target, path / native.CONFIG
    target = clip_target(path)
    return None if target is None else (target, path if path.is_dir() else path.parent)


def _refuse_other_than_published(target: Target, state: Mapping[str, Tensor]) -> None:
    """Shapes do not tell the number of heads; where it is the usual one in no published model of these shapes, it is
    not taken for it."""
    ours = target.architecture()
    for name in fitting_presets(state):
        published = preset_named(name).target().architecture()
        for key, value in published.items():
            if key.endswith(".heads") and ours.get(key) != value:
                raise UserError(
                    f"shapes do not tell {key}, which is {json.dumps(value)} in {name}: give --preset {name}, or put "
                    "the config.json of transformers or open_clip_config.json beside it"
                )


def _refuse_unknown_model(path: Path, layout: Layout, state: Mapping[str, Tensor]) -> None:
    refusal = layout.refusal(shapes_of(state))
    if refusal is not None:
        raise UserError(f"{path}: {refusal}")


def _unnamed(path: Path, state: Mapping[str, Tensor]) -> str:
    return (
        f"{path}: name the experiment that these weights are of, as in --preset ddpm/cifar10; only a folder with "
        f"the config.json of diffusers or transformers, or open_clip's, says it itself{fits_phrase(state)}"
    )


def _widened(state: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Half precision as float32."""
    half = [key for key, value in state.items() if value.dtype in (torch.float16, torch.bfloat16)]
    if half:
        notes.append(f"{len(half)} of {len(state)} tensors were in half precision, and are float32 now")
    return {key: state[key].float() if key in half else value for key, value in state.items()}


def _require_agreement(described: Target, where: Path, target: Target) -> None:
    ours, theirs = target.architecture(), described.architecture()
    for key, value in ours.items():
        if theirs.get(key) != value:
            raise UserError(
                f"{where}: its {key} is {json.dumps(theirs.get(key))}, but the requested model has {json.dumps(value)}"
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
        return layout_for(name, lambda layout: layout.marks(state))
    marked = marked_layouts(state)
    if not marked:
        part = part_of_a_model(state)
        if part is not None:
            raise UserError(f"{path}: {part}")
        raise UserError(f"{path}: in no known layout (first key {next(iter(state))!r}); known are {', '.join(LAYOUTS)}")
    if len(marked) == 1:
        return marked[0]
    published = [layout for layout in marked if layout.name in published_in]
    if published_in:
        # For a model published in neither, its own layout shows which keys differ.
        return published[0] if len(published) == 1 else layout_named(published_in[0])
    names = " and ".join(layout.name for layout in marked)
    raise UserError(f"{path}: the keys fit both {names}; give the layout, as in --layout {marked[0].name}")
