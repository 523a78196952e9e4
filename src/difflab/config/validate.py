"""Validates a composed dictionary, or raises an error of one line that names the key, the value and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from difflab.config.base import Config, fields_by_key
from difflab.config.foreign import NOT_INSTALLED, missing
from difflab.config.places import entry, entry_at, kinds_of, may_be_null, models_at
from difflab.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], data: Mapping[str, Any]) -> Model:
    """Builds `model`, or the model that it selects by their contents, from plain containers.

    Raises UserError with one line for the first problem and the number of the others.
    """
    if issubclass(model, Config):
        model = cast(type[Model], model.chosen(data))
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        # A misspelt key also leaves the right one missing: report the cause first.
        problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
        first, *others = _of_one_value(data, problems)
        rest = f" (and {len(others)} more)" if others else ""
        raise UserError(_explain(model, data, first) + rest) from None


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Returns the dotted key and the message of the first problem, as of a file that no user has written."""
    problem = error.errors(include_url=False)[0]
    return ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")


def problem_in_words(error: ValidationError) -> str:
    """The first problem with its key, which a problem of the whole has not."""
    key, message = first_problem(error)
    return f"{key}: {message}" if key else message


_WANTED = "Input should be "
_OF_SEVERAL = "union_error"
"""The type of a problem that is merged of those of several types."""


def _of_one_value(data: Mapping[str, Any], problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """Merges the problems of one value: each type of a union reports what it would have accepted.

    Where one type of a union took the value as a whole, what it found inside counts, not what the others wanted.
    """
    kept: list[ErrorDetails] = []
    wanted: dict[tuple[int | str, ...], ErrorDetails] = {}
    places = [tuple(_path_in_data(data, problem)) for problem in problems]
    for place, problem in zip(places, problems, strict=True):
        if any(len(other) > len(place) and other[: len(place)] == place for other in places):
            continue
        if not problem["msg"].startswith(_WANTED):
            kept.append(problem)
        elif place not in wanted:
            wanted[place] = problem
            kept.append(problem)
        else:
            first = wanted[place]
            here, also = (one["msg"].partition(", unable")[0] for one in (first, problem))
            first["msg"] = f"{here} or {also.removeprefix(_WANTED)}"
            first["type"] = _OF_SEVERAL
    return kept


def _explain(model: type[BaseModel], data: Mapping[str, Any], problem: ErrorDetails) -> str:
    path = _path_in_data(data, problem)
    key = ".".join(str(part) for part in path)
    if problem["type"] == "extra_forbidden":
        return _unknown_key(model, data, path)
    if problem["type"] == "missing":
        return f"missing key {key!r}: give it a value, as in {key}=..."
    has_kind = isinstance(problem["input"], Mapping)
    if problem["type"] == "union_tag_invalid" or (problem["type"] == "union_tag_not_found" and has_kind):
        chosen = f"{key}={problem['input']!r}" if isinstance(problem["input"], str) else f"{key}.kind={_tag(problem)!r}"
        if (package := missing(data, key)) is not None:
            return f"{chosen} comes with {package}, {NOT_INSTALLED}"
        known = problem.get("ctx", {}).get("expected_tags", "?")
        if _tag(problem) is None and has_kind:
            out = f"leave {key} out (~{key}, if the experiment sets a key of it)"
            return f"{key} has no kind: set {key}.kind=..., one of {known}, or {out}"
        return f"{chosen} is not known; choose one of {known}"
    if problem["type"] == "literal_error" and (package := missing(data, key)) is not None:
        return f"{key}={problem['input']!r} comes with {package}, {NOT_INSTALLED}"
    if problem["type"] == "list_type":
        example = "..." if problem["input"] is None else problem["input"]
        return f"{key}={problem['input']!r}: write a list, as in {key}=[{example}]"
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type", "union_tag_not_found") and key:
        here, _ = models_at(model, data, path)
        fields = [name for name in _fields(here) if name != "kind"]
        example = f", as in {key}.{fields[0]}=..." if fields else ""
        null = f", or {key}=null" if may_be_null(model, path) else ""
        return f"{key}={problem['input']!r}: this is a section, not a value; set its keys{example}{null}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}={problem['input']!r}: {message[:1].lower()}{message[1:]}"


def _tag(problem: ErrorDetails) -> object:
    return problem.get("ctx", {}).get("tag")


def _path_in_data(data: Any, problem: ErrorDetails) -> list[int | str]:
    """The keys and list indices of a problem that the user wrote, and the key that is missing.

    The rest of its location are names of the types that a union tried, and of the kind that it selected.
    """
    path: list[int | str] = []
    node = data
    for number, part in enumerate(problem["loc"], start=1):
        if isinstance(part, int):
            written = isinstance(node, list) and part < len(node)
        else:
            written = isinstance(node, Mapping) and part in node
        if written or (problem["type"] == "missing" and number == len(problem["loc"])):
            path.append(part)
            node = entry(node, part)
    return path


def _unknown_key(model: type[BaseModel], data: Any, path: list[int | str]) -> str:
    *parents, last = map(str, path)
    if (package := missing(data, ".".join(map(str, path)))) is not None:
        return f"{'.'.join(map(str, path))} comes with {package}, {NOT_INSTALLED}"
    here, elsewhere = models_at(model, data, path[:-1])
    fields = _fields(here)
    known = f"; known here: {', '.join(fields)}" if fields else ""
    owners = sorted({kind for other in elsewhere if last in fields_by_key(other) for kind in kinds_of(other)})
    if owners:
        chosen = f"{'.'.join(parents)}.kind={entry_at(data, path[:-1])['kind']}"
        whose = f"{', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it"
        return f"{chosen} has no {last!r}: leave it out, or remove it with ~{'.'.join(map(str, path))}; {whose}{known}"
    close = difflib.get_close_matches(last, fields, n=1)
    hint = f"; did you mean {'.'.join([*parents, close[0]])!r}?" if close else known
    return f"unknown key {'.'.join([*parents, last])!r}{hint}"


def _fields(models: list[type[BaseModel]]) -> list[str]:
    return sorted({key for model in models for key in fields_by_key(model)})
