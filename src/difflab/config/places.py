"""Finds the models that a place in a configuration may hold, given its contents."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from difflab.config.base import complete, fields_by_key
from difflab.config.registry import Registry

Path = Sequence[int | str]
"""The keys and list indices from the whole to a part."""


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value of this type may be or contain in a list or a mapping."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [complete(annotation)] if issubclass(annotation, BaseModel) else []
    for metadata in getattr(annotation, "__metadata__", ()):
        if isinstance(metadata, Registry):
            return list(metadata.models)
    return [m for argument in typing.get_args(annotation) for m in models_in(argument)]


def models_at(model: type[BaseModel], data: Any, path: Path) -> tuple[list[type[BaseModel]], list[type[BaseModel]]]:
    """The models that the mapping at `path` may be, by its `kind` if it has one, and those of the other kinds."""
    annotations: list[Any] = [model]
    for part in path:
        annotations = [inner for outer in annotations for inner in _inside(outer, str(part))]
    models = list(dict.fromkeys(found for annotation in annotations for found in models_in(annotation)))
    node = entry_at(data, path)
    kind = node.get("kind") if isinstance(node, Mapping) else None
    matching = [m for m in models if kind in kinds_of(m)]
    return (matching, [m for m in models if m not in matching]) if matching else (models, [])


def may_be_null(model: type[BaseModel], path: Path) -> bool:
    """Whether the value at `path` may be null."""
    annotations: list[Any] = [model]
    for part in path:
        annotations = [inner for outer in annotations for inner in _inside(outer, str(part))]
    return any(type(None) in typing.get_args(annotation) for annotation in annotations)


def _inside(annotation: Any, part: str) -> list[Any]:
    """The possible types of `part` of a value of this type: a field of a model, or a value of a mapping."""
    if typing.get_origin(annotation) is Annotated and not isinstance(annotation.__metadata__[0], Registry):
        return _inside(typing.get_args(annotation)[0], part)
    if typing.get_origin(annotation) is dict:
        return [typing.get_args(annotation)[1]]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [inner for one in typing.get_args(annotation) for inner in _inside(one, part)]
    return [
        annotation_of(m.model_fields[field])
        for m in models_in(annotation)
        for key, field in fields_by_key(m).items()
        if key == part
    ]


def annotation_of(field: FieldInfo) -> Any:
    """The whole type of a field, including metadata, which pydantic stores separately."""
    annotation: Any = field.annotation
    return Annotated[(annotation, *field.metadata)] if field.metadata else annotation


def entry_at(data: Any, path: Path) -> Any:
    """The entry at a path of plain contents, None if there is none."""
    for part in path:
        data = entry(data, part)
    return data


def entry(node: Any, part: int | str) -> Any:
    """The entry under a key or at a list index, None if there is none."""
    if isinstance(node, Mapping):
        return node.get(part)
    return node[part] if isinstance(node, list) and isinstance(part, int) and part < len(node) else None


def kinds_of(model: type[BaseModel]) -> tuple[str, ...]:
    """The values that its `kind` may have; empty if it has no `kind`."""
    return typing.get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()
