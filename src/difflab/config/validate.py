"""From a composed dictionary to a validated model, or one line that names the key, the value and the fix."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from difflab.config.base import Config, complete, fields_by_key
from difflab.config.foreign import missing
from difflab.config.registry import Registry
from difflab.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], data: Mapping[str, Any]) -> Model:
    """Build `model`, or the one that it chooses by their contents, from plain containers.

    Raises UserError with one line for the first problem (and the number of the others).
    """
    if issubclass(model, Config):
        model = cast(type[Model], model.chosen(data))
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        # A misspelt key also leaves the right one missing: say the cause first.
        problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
        first, *others = _of_one_value(data, problems)
        rest = f" (and {len(others)} more)" if others else ""
        raise UserError(_explain(model, data, first) + rest) from None


_WANTED = "Input should be "


def _of_one_value(data: Mapping[str, Any], problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """The problems, with those of one value as one: each type of a union says what it would have taken."""
    kept: list[ErrorDetails] = []
    wanted: dict[tuple[int | str, ...], ErrorDetails] = {}
    for problem in problems:
        place = tuple(_path_in_data(data, problem["loc"]))
        if not problem["msg"].startswith(_WANTED):
            kept.append(problem)
        elif place not in wanted:
            wanted[place] = problem
            kept.append(problem)
        else:
            first = wanted[place]
            here, also = (one["msg"].partition(", unable")[0] for one in (first, problem))
            first["msg"] = f"{here} or {also.removeprefix(_WANTED)}"
    return kept


def _explain(model: type[BaseModel], data: Mapping[str, Any], problem: ErrorDetails) -> str:
    path = _path_in_data(data, problem["loc"])
    key = ".".join(str(part) for part in path)
    if problem["type"] == "extra_forbidden":
        return _unknown_key(model, data, path)
    if problem["type"] == "missing":
        return f"missing key {key!r}: give it a value, as in {key}=..."
    has_kind = isinstance(problem["input"], Mapping)
    if problem["type"] == "union_tag_invalid" or (problem["type"] == "union_tag_not_found" and has_kind):
        chosen = f"{key}={problem['input']!r}" if isinstance(problem["input"], str) else f"{key}.kind={_tag(problem)!r}"
        if (package := missing(data, key)) is not None:
            return f"{chosen} comes with {package}, which is not installed: install it"
        known = problem.get("ctx", {}).get("expected_tags", "?")
        if _tag(problem) is None and has_kind:
            return f"{key} has no kind: say {key}.kind=..., one of {known}, or leave {key} out"
        return f"{chosen} is not known; choose one of {known}"
    if problem["type"] == "literal_error" and (package := missing(data, key)) is not None:
        return f"{key}={problem['input']!r} comes with {package}, which is not installed: install it"
    if problem["type"] == "list_type":
        return f"{key}={problem['input']!r}: write a list, as in {key}=[{problem['input']}]"
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type", "union_tag_not_found") and key:
        here, _ = _models_at(model, data, path)
        fields = [name for name in _fields(here) if name != "kind"]
        example = f", as in {key}.{fields[0]}=..." if fields else ""
        return f"{key}={problem['input']!r}: this is a section and no value; give its keys{example}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}={problem['input']!r}: {message[:1].lower()}{message[1:]}"


def _tag(problem: ErrorDetails) -> object:
    return problem.get("ctx", {}).get("tag")


def _path_in_data(data: Any, loc: tuple[int | str, ...]) -> list[int | str]:
    """Pydantic puts the tag of a discriminated union into the location; the user never wrote it, so leave it out."""
    path: list[int | str] = []
    node = data
    for i, part in enumerate(loc):
        inner = _entry(node, part)
        is_tag = isinstance(node, Mapping) and node.get("kind") == part
        # Below a plain value stands only which type of a union was tried.
        has_entries = isinstance(node, Mapping) or (isinstance(node, list) and isinstance(part, int))
        if inner is not None or (i == len(loc) - 1 and has_entries and not is_tag):
            path.append(part)
            node = inner
    return path


def _unknown_key(model: type[BaseModel], data: Any, path: list[int | str]) -> str:
    *parents, last = map(str, path)
    if (package := missing(data, ".".join(map(str, path)))) is not None:
        return f"{'.'.join(map(str, path))} comes with {package}, which is not installed: install it"
    here, elsewhere = _models_at(model, data, path[:-1])
    fields = _fields(here)
    known = f"; known here: {', '.join(fields)}" if fields else ""
    owners = sorted({kind for other in elsewhere if last in fields_by_key(other) for kind in _kinds_of(other)})
    if owners:
        chosen = f"{'.'.join(parents)}.kind={_at(data, path[:-1])['kind']}"
        return f"{chosen} has no {last!r}; {', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it{known}"
    close = difflib.get_close_matches(last, fields, n=1)
    hint = f"; did you mean {'.'.join([*parents, close[0]])!r}?" if close else known
    return f"unknown key {'.'.join([*parents, last])!r}{hint}"


def _fields(models: list[type[BaseModel]]) -> list[str]:
    return sorted({key for model in models for key in fields_by_key(model)})


def _models_at(
    model: type[BaseModel], data: Any, path: list[int | str]
) -> tuple[list[type[BaseModel]], list[type[BaseModel]]]:
    """The models that the mapping at `path` may be, by its `kind` where it has one, and those of the other kinds."""
    annotations: list[Any] = [model]
    for part in path:
        annotations = [inner for outer in annotations for inner in _inside(outer, str(part))]
    models = [found for annotation in annotations for found in _models_in(annotation)]
    node = _at(data, path)
    kind = node.get("kind") if isinstance(node, Mapping) else None
    matching = [m for m in models if kind in _kinds_of(m)]
    return (matching, [m for m in models if m not in matching]) if matching else (models, [])


def _inside(annotation: Any, part: str) -> list[Any]:
    """What `part` of something of that type may be: a field of a model, or any value of a mapping by name."""
    if typing.get_origin(annotation) is Annotated and not isinstance(annotation.__metadata__[0], Registry):
        return _inside(typing.get_args(annotation)[0], part)
    if typing.get_origin(annotation) is dict:
        return [typing.get_args(annotation)[1]]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [inner for one in typing.get_args(annotation) for inner in _inside(one, part)]
    return [
        _annotation_of(m.model_fields[field])
        for m in _models_in(annotation)
        for key, field in fields_by_key(m).items()
        if key == part
    ]


def _annotation_of(field: FieldInfo) -> Any:
    """The whole of it: pydantic keeps apart what is said of a type besides the type."""
    annotation: Any = field.annotation
    return Annotated[(annotation, *field.metadata)] if field.metadata else annotation


def _at(data: Any, path: list[int | str]) -> Any:
    for part in path:
        data = _entry(data, part)
    return data


def _entry(node: Any, part: int | str) -> Any:
    if isinstance(node, Mapping):
        return node.get(part)
    return node[part] if isinstance(node, list) and isinstance(part, int) and part < len(node) else None


def _kinds_of(model: type[BaseModel]) -> tuple[str, ...]:
    return typing.get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [complete(annotation)] if issubclass(annotation, BaseModel) else []
    for metadata in getattr(annotation, "__metadata__", ()):
        if isinstance(metadata, Registry):
            return list(metadata.models)
    return [m for argument in typing.get_args(annotation) for m in _models_in(argument)]
