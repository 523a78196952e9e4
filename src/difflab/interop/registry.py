"""Weights in and out: what a file is, official formats -> ours, ours -> official formats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from difflab.errors import UserError
from difflab.files import replacing
from difflab.interop import native
from difflab.interop.diffusers_unet import (
    DIFFUSERS,
    from_diffusers_config,
    modern_attention_names,
    to_diffusers_config,
)
from difflab.interop.guided import GUIDED, GUIDED_NEW_ORDER
from difflab.interop.keymap import shapes_of
from difflab.interop.layout import Layout, Target
from difflab.interop.pesser import PESSER
from difflab.interop.presets import PRESETS, preset_named
from difflab.interop.unpickle import WeightFile, read_weights

LAYOUTS = {layout.name: layout for layout in (PESSER, DIFFUSERS, GUIDED, GUIDED_NEW_ORDER)}
NATIVE = "difflab"
_OUR_MARKER = "encoder.0.block.0.norm1.weight"
_DIFFUSERS_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_NOT_ARCHITECTURE = {"dropout", "init", "checkpoint_activations", "blocks_per_level", "attention_heads", "channel_mult"}


@dataclass(frozen=True)
class Identification:
    """What a file or folder of weights is, from its keys and shapes alone.

    layout:   the official layout, `difflab` for a UNet under our own keys, None when it is none that is known.
    presets:  the published networks that it fits; several may share one architecture.
    notes:    what was done to read it, and what is remarkable about it.
    """

    path: Path
    format: str
    layout: str | None
    presets: tuple[str, ...]
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """Weights under our keys, the network they are for, and how they were read."""

    state: dict[str, Tensor]
    target: Target
    layout: str
    notes: tuple[str, ...]


def identify(path: str | Path, wrapper: str | None = None) -> Identification:
    """Say what the weights at `path` (a file, a diffusers folder or a difflab export) are."""
    found = _open(Path(path), wrapper)
    shapes = shapes_of(found.state)
    fitting = _fitting_presets(found.state)
    marked = _marked_layouts(found.state)
    layout = next(iter(fitting.values()), None) or (marked[0].name if marked else None)
    notes = found.notes
    if len(marked) > 1:
        notes = (*notes, f"the keys are the same in {' and '.join(other.name for other in marked)}")
    if layout is None and any(key.endswith(_OUR_MARKER) for key in found.state):
        layout = NATIVE
    return Identification(
        path=Path(path),
        format=found.format,
        layout=layout,
        presets=tuple(fitting),
        tensors=len(shapes),
        parameters=sum(tensor.numel() for tensor in found.state.values()),
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in found.state.values()})),
        notes=notes,
    )


def import_weights(
    path: str | Path, target: Target | str | None = None, layout: str | None = None, wrapper: str | None = None
) -> Imported:
    """Official weights -> ours.

    target: the network they are for: the name of a published one ("ddpm/cifar10") or any other. It may be left out
            where the folder says it itself (diffusers' config.json); given, it must agree with what the folder says.
    layout: one of LAYOUTS; None takes the one whose keys and shapes the file has. The state dict cannot tell the two
            orders of attention in the guided layouts apart, so there it must be given.
    Raises UserError naming the first keys that differ and the published networks that the file would fit.
    """
    path = Path(path)
    if isinstance(target, str):
        target = preset_named(target).target()
    found = _open(path, wrapper)
    described = _described_by_folder(path)
    if described is not None and target is not None:
        _require_agreement(path, described, target)
    target = target or described
    if target is None:
        fits = _fits_phrase(found.state)
        raise UserError(f"{path}: name the network these weights are for{fits}")
    chosen = _choose_layout(path, found.state, layout)
    try:
        state = chosen.keymap(target).from_official(found.state)
    except UserError as error:
        raise UserError(f"{path}: {error}{_fits_phrase(found.state)}") from error
    return Imported(state, target, chosen.name, found.notes)


def export_weights(path: str | Path, state: Mapping[str, Tensor], target: Target, layout: str) -> list[Path]:
    """Our weights -> an official layout; returns the files written.

    `diffusers` writes a folder that `UNet2DModel.from_pretrained` loads; the others write one file, as safetensors or,
    where the path ends in .pt or .pth, by torch.save. Raises UserError when the layout cannot express the network.
    """
    path = Path(path)
    official = _layout(layout).keymap(target).to_official(state)
    if layout == DIFFUSERS.name:
        config = to_diffusers_config(target)
        native.save_safetensors(path / _DIFFUSERS_WEIGHTS[0], official)
        native.save_json(path / native.CONFIG, config)
        return [path / native.CONFIG, path / _DIFFUSERS_WEIGHTS[0]]
    if path.suffix in (".pt", ".pth"):
        with replacing(path) as temporary:
            torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in official.items()}, temporary)
    elif path.suffix == ".safetensors":
        native.save_safetensors(path, official)
    else:
        raise UserError(f"{path}: end the name in .safetensors or .pt")
    return [path]


def _open(path: Path, wrapper: str | None) -> WeightFile:
    found = read_weights(_weights_in(path), wrapper)
    renamed = modern_attention_names(found.state)
    if renamed.keys() == found.state.keys():
        return found
    notes = (*found.notes, "took the attention keys of older diffusers files (query, key, value, proj_attn)")
    return WeightFile(found.path, found.format, renamed, notes)


def _weights_in(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in (native.WEIGHTS, *_DIFFUSERS_WEIGHTS):
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path}: no weights in this folder; looked for {native.WEIGHTS}, {', '.join(_DIFFUSERS_WEIGHTS)}")


def _described_by_folder(path: Path) -> Target | None:
    config = path / native.CONFIG
    if not config.is_file() or (path / native.WEIGHTS).is_file():
        return None
    return from_diffusers_config(native.read_json(config))


def _require_agreement(path: Path, described: Target, target: Target) -> None:
    ours, theirs = _architecture(target), _architecture(described)
    for key, value in ours.items():
        if theirs[key] != value:
            raise UserError(
                f"{path / native.CONFIG}: its {key} is {json.dumps(theirs[key])}, "
                f"but the network asked for has {json.dumps(value)}"
            )


def _architecture(target: Target) -> dict[str, object]:
    cfg = target.network
    facts: dict[str, object] = {"image_size": target.image_size, "learned_variance": target.learned_variance}
    facts |= {key: value for key, value in cfg.model_dump().items() if key not in _NOT_ARCHITECTURE}
    heads = facts.pop("attention_head_channels")
    widths = cfg.widths
    facts |= {"widths": widths, "depths": cfg.depths}
    facts["heads"] = [width // heads if isinstance(heads, int) else cfg.attention_heads for width in widths]
    return facts


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise UserError(f"no layout is called {name!r}; there are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _marked_layouts(state: Mapping[str, Tensor]) -> list[Layout]:
    return [layout for layout in LAYOUTS.values() if layout.marker in state]


def _choose_layout(path: Path, state: Mapping[str, Tensor], name: str | None) -> Layout:
    if name is not None:
        return _layout(name)
    marked = _marked_layouts(state)
    if len(marked) > 1:
        raise UserError(
            f"{path}: the keys do not tell {' from '.join(layout.name for layout in marked)}; give the layout"
        )
    if not marked:
        raise UserError(f"{path}: in no known layout (first key {next(iter(state))!r}); known are {', '.join(LAYOUTS)}")
    return marked[0]


def _fitting_presets(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Published network -> the layout in which the file is exactly that network."""
    shapes = shapes_of(state)
    fitting: dict[str, str] = {}
    for layout in _marked_layouts(state):
        # Several published networks share one architecture, which need be compared once.
        verdicts: dict[tuple[str, int, bool], bool] = {}
        for name, preset in PRESETS.items():
            if layout.name not in preset.layouts:
                continue
            architecture = (preset.network, preset.image_size, preset.learned_variance)
            if architecture not in verdicts:
                verdicts[architecture] = layout.keymap(preset.target()).fits(shapes)
            if verdicts[architecture]:
                fitting[name] = layout.name
    return fitting


def _fits_phrase(state: Mapping[str, Tensor]) -> str:
    fitting = _fitting_presets(state)
    if not fitting:
        return " (they are none of the published networks known here)"
    return f" (they fit {', '.join(fitting)})"
