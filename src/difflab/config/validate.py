"""From a composed dictionary to a validated model, or one line that names the key, the value and the fix."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from difflab.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], data: Mapping[str, Any]) -> Model:
    """Build `model` from plain containers.

    Raises UserError with one line for the first problem (and the number of the others).
    """
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        # A misspelt key also leaves the right one missing: say the cause first.
        problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
        rest = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(_explain(model, data, problems[0]) + rest) from None


def _explain(model: type[BaseModel], data: Mapping[str, Any], problem: ErrorDetails) -> str:
    path = _path_in_data(data, problem["loc"])
    key = ".".join(str(part) for part in path)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_suggest(model, data, path)}"
    if problem["type"] == "missing":
        return f"missing key {key!r}: give it a value, as in {key}=..."
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        context = problem.get("ctx", {})
        return f"{key}.kind={context.get('tag')!r} is not known; choose one of {context.get('expected_tags', '?')}"
    if problem["type"] == "list_type":
        return f"{key}={problem['input']!r}: write a list, as in {key}=[{problem['input']}]"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}={problem['input']!r}: {message[:1].lower()}{message[1:]}"


def _path_in_data(data: Any, loc: tuple[int | str, ...]) -> list[int | str]:
    """Pydantic puts the tag of a discriminated union into the location; the user never wrote it, so leave it out."""
    path: list[int | str] = []
    node = data
    for i, part in enumerate(loc):
        inner = _entry(node, part)
        is_tag = isinstance(node, Mapping) and node.get("kind") == part
        if inner is not None or (i == len(loc) - 1 and not is_tag):
            path.append(part)
            node = inner
    return path


def _suggest(model: type[BaseModel], data: Any, path: list[int | str]) -> str:
    known = sorted(_known_keys(model, data, path[:-1]))
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    if close:
        return f"; did you mean {'.'.join([*map(str, path[:-1]), close[0]])!r}?"
    return f"; known here: {', '.join(known)}" if known else ""


def _known_keys(model: type[BaseModel], data: Any, path: list[int | str]) -> set[str]:
    models: list[type[BaseModel]] = [model]
    node = data
    for part in path:
        node = _entry(node, part)
        models = [
            inner
            for outer in models
            for inner in (
                _models_in(outer.model_fields[str(part)].annotation) if str(part) in outer.model_fields else []
            )
        ]
    kind = node.get("kind") if isinstance(node, Mapping) else None
    if kind is not None:
        matching = [m for m in models if "kind" in m.model_fields and kind in typing.get_args(_kind_of(m))]
        models = matching or models
    return {name for m in models for name in m.model_fields}


def _entry(node: Any, part: int | str) -> Any:
    if isinstance(node, Mapping):
        return node.get(part)
    return node[part] if isinstance(node, list) and isinstance(part, int) and part < len(node) else None


def _kind_of(model: type[BaseModel]) -> Any:
    return model.model_fields["kind"].annotation


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [m for argument in typing.get_args(annotation) for m in _models_in(argument)]
