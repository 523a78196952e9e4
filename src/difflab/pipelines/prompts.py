"""Names of classes and the prompts made of them, for zero-shot classification."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difflab.config.clip import Label, PromptedConfig
from difflab.config.data import DataConfig
from difflab.console import listed, printable
from difflab.data.build import class_names_of
from difflab.data.captions import BadCaption, storable_text
from difflab.data.shapes.prompts import templates as shapes_templates
from difflab.data.shapes.scene import Scene
from difflab.data.shapes.source import class_label
from difflab.data.shapes.source import class_names as shapes_names
from difflab.errors import UserError, user_errors
from difflab.text.templates import NAMED, filled, lines_of_file, read_templates
from difflab.types import Batch


@dataclass(frozen=True)
class Prompts:
    """The classes by name, in the order of the labels, and the templates of their prompts."""

    names: Sequence[str]
    templates: Sequence[str]

    @property
    def texts(self) -> list[list[str]]:
        """The prompts of every class."""
        return [[filled(template, name) for template in self.templates] for name in self.names]

    @property
    def alike(self) -> list[str]:
        """Names that several classes have."""
        return [name for name, count in Counter(self.names).items() if count > 1]

    @property
    def repeated(self) -> list[str]:
        """Templates that are there several times, so that they count for more."""
        return [template for template, count in Counter(self.templates).items() if count > 1]


def data_with_classes(data: DataConfig, label: Label) -> DataConfig:
    """The data with as many classes as its index names, or with those of the shapes data. Raises UserError if missing.

    Nothing of a CLIP depends on the classes of its training data, so other data has its own, and needs no captions.
    """
    names = class_names_of(data) if label == "stored" else shapes_names(label)
    classes = data.classes if names is None else len(names)
    return data.model_copy(update={"classes": classes, "class_names": None, "fields": [], "captions": "whole"})


def has_names(config: PromptedConfig, data: DataConfig) -> bool:
    """Whether classes have names, given or in the data, as `data_with_classes` gives it."""
    return config.class_names is not None or config.label != "stored" or class_names_of(data) is not None


def prompts_of(config: PromptedConfig, data: DataConfig) -> Prompts:
    """The prompts of a configuration, for data as `data_with_classes` gives it.

    Raises UserError for names that the data does not have, another number of them, or none.
    """
    known = class_names_of(data) if config.label == "stored" else shapes_names(config.label)
    names = _names(config, known, data.classes)
    with user_errors():
        templates = read_templates(config.templates, {**NAMED, "shapes": lambda: shapes_templates(names)})
    for number, template in enumerate(templates, start=1):
        try:
            storable_text(template)
        except BadCaption as error:
            raise UserError(f"templates: template {number} is {error}: correct it") from None
    return Prompts(names, templates)


def files_of(config: PromptedConfig) -> list[Path]:
    """The files that prompts are made of."""
    given = [config.templates, config.class_names]
    return [path for one in given if isinstance(one, str) and (path := Path(one)).is_file()]


def label_fields(label: Label) -> Sequence[str]:
    """The fields of the data that `labels_of` reads."""
    return ("label",) if label == "stored" else ("json",)


def labels_of(batch: Batch, label: Label, classes: int) -> Tensor:
    """The class of each image, int64 [B]. Raises UserError for one outside the classes, and for other data."""
    if label != "stored":
        return torch.tensor([_of_scene(scene, label, key) for scene, key in zip(batch["json"], batch["key"])])
    found = batch["label"].cpu()
    outside = [c for c in found.tolist() if not 0 <= c < classes]
    if outside:
        raise UserError(f"class {outside[0]} is not in 0..{classes - 1}, the classes that have names")
    return found


def _of_scene(scene: Any, label: Label, key: str) -> int:
    assert label != "stored"
    try:
        return class_label(Scene.from_dict(scene), label)
    except (KeyError, TypeError, ValueError, IndexError):
        raise UserError(
            f"label={label} is of the shapes data, and the json of {key} describes no scene: set label=stored"
        ) from None


def _names(config: PromptedConfig, known: Sequence[str] | None, classes: int | None) -> list[str]:
    given, said = config.class_names, "class_names"
    if isinstance(given, str):
        said = f"class_names={printable(given)}"
        given = _from_file(Path(given), said)
    if isinstance(given, Mapping):
        return _checked(_renamed(given, known, said), said)
    if given is None:
        if known is None:
            raise UserError(
                "the data does not name its classes: give class_names=[...], one for every label, or a file of them"
            )
        return list(known)
    if classes is not None and len(given) != classes:
        raise UserError(
            f"{said} has {len(given)} names, the data has {classes} classes: name each class once, in the order of the "
            "labels"
        )
    return _checked(given, said)


def _checked(names: Sequence[str], said: str) -> list[str]:
    for number, name in enumerate(names):
        if not name.strip():
            raise UserError(f"{said}: the name of class {number} is empty")
        try:
            storable_text(name)
        except BadCaption as error:
            raise UserError(f"{said}: the name of class {number} is {error}: correct it") from None
    return list(names)


def _renamed(given: Mapping[str, str], known: Sequence[str] | None, said: str) -> list[str]:
    if known is None:
        raise UserError(f"{said} renames classes, but the data does not name its own: give a list of all names")
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f": it has {listed(known)}"
            raise UserError(f"{said}: the data has no class {name!r}{hint}")
    return [given.get(name, name) for name in known]


def _from_file(path: Path, said: str) -> list[str] | dict[str, str]:
    if not path.is_file():
        raise UserError(f"{said} does not exist: give a list, or a file with a name in every line")
    if path.suffix.lower() != ".json":
        return lines_of_file(path, "class_names")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{said} is not valid JSON ({error})") from None
    if isinstance(content, dict) and all(isinstance(name, str) for name in content.values()):
        return content
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    raise UserError(f"{said} holds neither a list of names nor an object of class: name")
