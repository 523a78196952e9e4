"""What a pipeline folder of diffusers is, part by part, and what difflab makes of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.describing import of_config
from difflab.interop.diffusers_autoencoder import CLASSES
from difflab.interop.diffusers_condition import CONDITION
from difflab.interop.diffusers_model import SCHEDULER
from difflab.interop.identifying import Component, Identification, dtypes_of, fitting_presets
from difflab.interop.keymap import refuse_misfit, shapes_of
from difflab.interop.latent.clip_tokenizer import tokenizer_of_folder
from difflab.interop.latent.pipeline import described_pipeline
from difflab.interop.latent.pipeline_parts import OF_TEXT, UNET_CLASS, class_of, described_part
from difflab.interop.latent.presets import presets_of_network
from difflab.interop.latent.schedulers import read_scheduler
from difflab.interop.latent.tower import checked_type
from difflab.interop.layout import Layout, Target
from difflab.interop.layouts import layout_for
from difflab.interop.opening import PIPELINE, holds_weights, open_weights
from difflab.interop.text_encoders import clip_text_architecture

_PROGRAM, _NOT_READ = "diffusers", "not read"
_DESCRIPTIONS = (".json", ".txt")
"""Endings of files that are no weights."""


def identify_pipeline(path: Path) -> Identification:
    """Identifies the folder of a pipeline; see `is_pipeline`. Parts that are not read are counted all the same."""
    content = native.read_json(path / PIPELINE)
    parts, notes, tensors = [], [], 0
    for name in content:
        kind = class_of(content, name)
        if kind is None or Path(name).name != name:
            continue
        part, state, of_part = _component(path / name, kind)
        parts.append(part)
        notes += of_part
        tensors += len(state)
    facts, presets = _as_a_whole(path, str(content.get("_class_name")), parts, notes)
    return Identification(
        path=path,
        format=f"folder of {content.get('_class_name')}",
        layout=_PROGRAM,
        facts=facts,
        presets=presets,
        tensors=tensors,
        parameters=sum(part.parameters for part in parts),
        dtypes=tuple(sorted({dtype for part in parts for dtype in part.dtypes})),
        notes=tuple(notes),
        parts=tuple(parts),
    )


def _as_a_whole(
    path: Path, kind: str, parts: list[Component], notes: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The facts of the model that is imported, and the published models that have its network."""
    try:
        described = described_pipeline(path)
        config = described.config()
        refused = next((part for part in parts if part.refused), None)
        if refused is not None:
            raise UserError(f"{path / refused.name}: {refused.becomes}")
    except UserError as error:
        notes.append(f"it is not imported whole: {error}")
        return (f"{kind} of {_PROGRAM}",), ()
    notes += described.notes
    return of_config(config), tuple(presets_of_network(described.network))


def _component(folder: Path, kind: str) -> tuple[Component, Mapping[str, Tensor], list[str]]:
    """A part, its weights, and remarks on how these were read."""
    describe = _READ.get(kind) or (_scheduler if kind.endswith("Scheduler") else None)
    files = tuple(sorted(file.name for file in folder.glob("*") if file.suffix in _DESCRIPTIONS))
    state: Mapping[str, Tensor] = {}
    notes: list[str] = []
    try:
        if describe is not None and not folder.is_dir():
            raise UserError("the folder is missing: fetch it again")
        if holds_weights(folder):
            found = open_weights(folder)
            files, state = (found.path.name,), found.state
            notes = [f"{folder.name}: {note}" for note in found.notes]
        becomes, refused = _NOT_READ if describe is None else describe(folder, state), False
    except UserError as error:
        why = str(error).removeprefix(f"{folder}").lstrip("/: ")
        becomes, refused = f"{_NOT_READ}: {why}", describe is not None
    parameters = sum(tensor.numel() for tensor in state.values())
    component = Component(folder.name, kind, files, parameters, dtypes_of(state.values()), becomes, refused)
    # The text encoder's are said with the whole model.
    return component, state, notes if describe in (_network, _first_stage) else []


def _network(folder: Path, state: Mapping[str, Tensor]) -> str:
    target, _ = _checked(folder, "unet", state)
    return _fitting(f"network at {target.image_size}x{target.image_size}", presets_of_network(target))


def _first_stage(folder: Path, state: Mapping[str, Tensor]) -> str:
    _, layout = _checked(folder, "autoencoder", state)
    return _fitting(", ".join(("first stage", *layout.in_words(shapes_of(state)))), list(fitting_presets(state)))


def _checked(folder: Path, kind: str, state: Mapping[str, Tensor]) -> tuple[Target, Layout]:
    """The network that config.json says, and the layout of its weights. Raises UserError unless these are there, and
    are of that network."""
    target = described_part(folder, kind)
    if not state:
        raise UserError("has no weights")
    layout = layout_for(_PROGRAM, lambda known: known.takes(target.network))
    expected = layout.keymap(target).official_shapes
    refuse_misfit(state, expected, "these weights", f"are not of the network that its {native.CONFIG} says")
    return target, layout


def _text_encoder(folder: Path, state: Mapping[str, Tensor]) -> str:
    config = folder / native.CONFIG
    found = clip_text_architecture(config, checked_type(config))
    return (
        f"text encoder, {found.num_hidden_layers} layers of {found.hidden_size} channels, "
        f"{found.max_position_embeddings} tokens"
    )


def _tokenizer(folder: Path, state: Mapping[str, Tensor]) -> str:
    found = tokenizer_of_folder(folder)
    return f"tokenizer, {found.vocabulary:,} ids, padded with {found.padding!r}"


def _scheduler(folder: Path, state: Mapping[str, Tensor]) -> str:
    path = folder / SCHEDULER
    content = native.read_json(path)
    process, sampler, _ = read_scheduler(path, content, content.get("variance_type") == "learned_range")
    return f"process, {process.schedule.kind}, prediction={process.prediction}, and sampler={sampler.kind}"


def _fitting(what: str, presets: list[str]) -> str:
    return f"{what}; fits {', '.join(presets)}" if presets else what


_READ: dict[str, Callable[[Path, Mapping[str, Tensor]], str]] = {
    **dict.fromkeys((CONDITION, UNET_CLASS), _network),
    **dict.fromkeys(CLASSES, _first_stage),
    **dict.fromkeys(OF_TEXT.parts["text_encoder"], _text_encoder),
    **dict.fromkeys(OF_TEXT.parts["tokenizer"], _tokenizer),
}
"""The class of a part, other than a scheduler -> what it becomes, in words. They raise UserError for what difflab has
not."""
