"""Identifies weights: their layout, the published models that they fit, and the facts that their shapes reveal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import Tensor

from difflab.config.model import ModelConfig
from difflab.config.stored import read_train_config
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.interop.autoencoder_folder import autoencoder_of_folder
from difflab.interop.autoencoder_layout import COMPVIS_AUTOENCODER
from difflab.interop.clip_folder import clip_of_folder
from difflab.interop.describing import native_in_words, of_config
from difflab.interop.guided import GUIDED
from difflab.interop.keymap import Shapes, shapes_of
from difflab.interop.latent.checkpoint import Checkpoint, open_checkpoint
from difflab.interop.latent.conditions import condition_in_words
from difflab.interop.latent.presets import fitting_latent_presets
from difflab.interop.latent_unets import COMPVIS_UNET
from difflab.interop.layout import Target
from difflab.interop.layouts import LAYOUTS, NATIVE, is_ours, layout_named, marked_layouts, part_of_a_model
from difflab.interop.native import exported_model, read_json
from difflab.interop.opening import open_weights
from difflab.interop.presets import PRESETS


@dataclass(frozen=True)
class Component:
    """A part of a pipeline folder.

    kind:    its class in the other program.
    files:   those that were read.
    dtypes:  of its weights; () if it has none, or none that are read.
    becomes: what difflab makes of it, or why it does not read it.
    refused: whether it is of a class that difflab reads, and is none of those that it has.
    """

    name: str
    kind: str
    files: tuple[str, ...]
    parameters: int
    dtypes: tuple[str, ...]
    becomes: str
    refused: bool


@dataclass(frozen=True)
class Identification:
    """What a file or folder of weights is, from its keys and shapes alone.

    layout:   the official layout, `difflab` for a model under our own keys, None if unknown.
    facts:    a description of the model.
    presets:  the published models that it fits; several may share one architecture.
    notes:    what was done to read it, and anything remarkable.
    parts:    those of a pipeline folder.
    """

    path: Path
    format: str
    layout: str | None
    facts: tuple[str, ...]
    presets: tuple[str, ...]
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    notes: tuple[str, ...]
    parts: tuple[Component, ...] = ()


def identify(path: str | Path, wrapper: str | None = None) -> Identification:
    """Identifies the weights at `path` (a file, a diffusers folder or a difflab export)."""
    path = Path(path)
    checkpoint = None if wrapper is not None else open_checkpoint(path)
    if checkpoint is not None:
        return _of_checkpoint(checkpoint)
    found = open_weights(path, wrapper)
    fitting = fitting_presets(found.state)
    marked = marked_layouts(found.state)
    layout = next(iter(fitting.values()), None) or (marked[0].name if marked else None)
    notes = list(found.notes)
    if len(marked) > 1:
        known = f"; the layout of {next(iter(fitting))} is known to be {layout}" if fitting else ""
        notes.append(f"the keys are the same in {' and '.join(other.name for other in marked)}{known}")
    named = published_as(path, fitting)
    if named is not None and len(fitting) > 1:
        notes.append(f"the file has the name of {named}")
    if layout is None and is_ours(found.state):
        layout = NATIVE
    shapes = shapes_of(found.state)
    config = _config_beside(found.path, shapes, notes) if layout == NATIVE else _described_beside(path, shapes, notes)
    if layout is None:
        deduced = () if (part := part_of_a_model(found.state)) is None else (part,)
    else:
        deduced = native_in_words(shapes) if layout == NATIVE else LAYOUTS[layout].in_words(shapes)
    return Identification(
        path=path,
        format=found.format,
        layout=layout,
        facts=deduced if config is None else of_config(config),
        presets=tuple(fitting),
        tensors=len(found.state),
        parameters=sum(tensor.numel() for tensor in found.state.values()),
        dtypes=dtypes_of(found.state.values()),
        notes=tuple(notes),
    )


def _of_checkpoint(checkpoint: Checkpoint) -> Identification:
    """What a checkpoint of a whole latent diffusion model is."""
    unet = checkpoint.unet_shapes
    layout = COMPVIS_UNET if COMPVIS_UNET.marks(unet) else GUIDED
    stage = COMPVIS_AUTOENCODER.in_words(shapes_of(checkpoint.first_stage))
    tensors = [*checkpoint.unet.values(), *checkpoint.first_stage.values(), *checkpoint.condition.values()]
    condition = condition_in_words(checkpoint.condition) if checkpoint.condition else "no condition of its own"
    averages = "has averages" if checkpoint.averages is not None else "has no averages"
    return Identification(
        path=checkpoint.path,
        format=checkpoint.format,
        layout=COMPVIS_UNET.program,
        facts=("latent diffusion model", *layout.in_words(unet), *stage, condition),
        presets=tuple(fitting_latent_presets(unet)),
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors),
        dtypes=dtypes_of(tensors),
        notes=(f"it {averages} of training (model_ema.*), which are not counted; --wrapper inspects a part alone",),
    )


def dtypes_of(tensors: Iterable[Tensor]) -> tuple[str, ...]:
    """The names of their types, each once."""
    return tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}))


def _described_beside(path: Path, shapes: Shapes, notes: list[str]) -> ModelConfig | None:
    """The autoencoder or the CLIP that a folder of another program describes, if the weights are of it."""
    try:
        described = autoencoder_of_folder(path) or clip_of_folder(path)
        if described is None:
            return None
        target = Target.of(described.config)
        fits = any(layout.keymap(target).official_shapes == shapes for layout in marked_layouts(shapes))
    except UserError as error:
        notes.append(f"what is beside it is of no use: {error}")
        return None
    notes.extend(described.notes)
    if not fits:
        notes.append("what is beside it is of another model")
    return described.config if fits else None


def _config_beside(file: Path, shapes: Shapes, notes: list[str]) -> ModelConfig | None:
    """The configuration next to difflab weights: that of their export, or of their run."""
    for folder in file.absolute().parents[:3]:
        for name in ("config.json", "config.yaml"):
            path = folder / name
            if not path.is_file():
                continue
            try:
                config = _read_config(path)
                fits = Target.of(config).shapes() == shapes
            except UserError as error:
                why = str(error).removeprefix(f"{path}: ")
                notes.append(f"{path} beside it is of no use: {why}")
                return None
            if not fits:
                notes.append(f"{path} beside it is of another model")
                return None
            return config
    return None


def _read_config(path: Path) -> ModelConfig:
    if path.suffix == ".json":
        content = read_json(path)
        # An export wraps the configuration, a run does not.
        return exported_model(path.parent) if "difflab" in content else validate(ModelConfig, content)
    return read_train_config(path.parent / "config.yaml").model()


def fitting_presets(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Published model -> the layout in which the state dict is exactly that model."""
    shapes = shapes_of(state)
    return {
        name: layout.name
        for layout in marked_layouts(state)
        for name, preset in PRESETS.items()
        if layout.name in preset.layouts and _fits(layout.name, preset.architecture, shapes)
    }


def _fits(layout: str, architecture: tuple[object, ...], shapes: Shapes) -> bool:
    """Whether these are the official shapes of an architecture; its network is built only if it could be."""
    if not layout_named(layout).could_be(_target(architecture), shapes):
        return False
    return _official_shapes(layout, architecture) == shapes


@cache
def _target(architecture: tuple[object, ...]) -> Target:
    return next(preset.target() for preset in PRESETS.values() if preset.architecture == architecture)


@cache
def _official_shapes(layout: str, architecture: tuple[object, ...]) -> Shapes:
    return layout_named(layout).keymap(_target(architecture)).official_shapes


def fits_phrase(state: Mapping[str, Tensor]) -> str:
    """The addition to an error message: ` (they fit ...)`."""
    fitting = fitting_presets(state)
    if not fitting:
        return " (they are none of the published models known here)"
    return f" (they fit {', '.join(fitting)})"


def published_as(path: Path, among: Mapping[str, object]) -> str | None:
    """The preset whose published file has this file's name; several models have the same shapes."""
    for name in among:
        preset = PRESETS[name]
        if preset.file and path.name.endswith(preset.file):
            return name
    return None
