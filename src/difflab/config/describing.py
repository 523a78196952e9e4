"""What the keys of a configuration mean: the strings below the fields of its class, read when somebody asks."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator

from pydantic import BaseModel

from difflab.config.base import fields_by_key


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """{key: its description in one line} of the fields that have one, those of base classes too.

    The description of a field is the string below it, or what its `Field(description=...)` says.
    """
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found.update(_strings_below_fields(base))
    keys = fields_by_key(model)
    said = {key: model.model_fields[name].description or found.get(name) for key, name in keys.items()}
    return {key: " ".join(text.split()) for key, text in said.items() if text}


def key_lines(model: type[BaseModel]) -> Iterator[str]:
    """`key=default  description` of every key but `kind`, aligned; `...` stands for a value that has to be given."""
    said = descriptions(model)
    shown = {
        key: f"{key}={_default_in_words(model, name)}" for key, name in fields_by_key(model).items() if key != "kind"
    }
    width = max(map(len, shown.values()), default=0)
    for key, assignment in shown.items():
        yield f"  {assignment:{width}}  {said.get(key, '')}".rstrip()


def _default_in_words(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "..."
    value = field.get_default(call_default_factory=True, validated_data={})
    return value if isinstance(value, str) and value.isidentifier() else json.dumps(value)


def _strings_below_fields(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    try:
        source = inspect.getsource(model)
    except (OSError, TypeError):
        # A class without a file, as of a frozen program: its keys are listed without descriptions.
        return
    (statement,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(statement, ast.ClassDef), "the source of a class is a class"
    for field, below in zip(statement.body, statement.body[1:]):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            yield field.target.id, below.value.value
