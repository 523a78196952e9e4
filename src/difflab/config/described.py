"""The descriptions of options in the source of a configuration: strings below fields, or the class's docstring."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel


def described(config: type[BaseModel]) -> dict[str, str]:
    """The description, in one line, of each documented field, by field name."""
    found: dict[str, str] = {}
    for one in reversed(config.__mro__):
        if issubclass(one, BaseModel) and one is not BaseModel:
            found |= dict(_of_docstring(one.__doc__ or "", one.model_fields))
            found |= _below_fields(one.__module__).get(one.__qualname__, {})
    own = {name: field.description for name, field in config.model_fields.items() if field.description}
    return found | {name: _in_a_line(text) for name, text in own.items()}


def named_in(module: str) -> Mapping[str, str]:
    """The descriptions of a module's assignments, functions and classes, by name; nothing is imported."""
    return {
        name: text for name, text in [*_below(_tree(module).body), *_docstrings(_tree(module).body)] if text
    }  # fmt: skip


@functools.cache
def _below_fields(module: str) -> dict[str, dict[str, str]]:
    classes = (node for node in ast.walk(_tree(module)) if isinstance(node, ast.ClassDef))
    return {node.name: dict(_below(node.body)) for node in classes}


def _file_of(module: str) -> Path | None:
    """The source file of a module; None if it has none, as in a frozen program."""
    there = sys.modules.get(module)
    spec = importlib.util.find_spec(module) if there is None else there.__spec__
    path = None if spec is None or spec.origin is None else Path(spec.origin)
    return path if path is not None and path.is_file() else None


@functools.cache
def _tree(module: str) -> ast.Module:
    path = _file_of(module)
    return ast.parse("" if path is None else path.read_text(encoding="utf-8"))


def _below(body: Iterable[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Yields (name, text) of every assignment with a string below it."""
    before: ast.stmt | None = None
    for node in body:
        match before, node:
            case (
                (ast.AnnAssign(target=ast.Name(name)) | ast.Assign(targets=[ast.Name(name)])),
                ast.Expr(ast.Constant(str(text))),
            ):
                yield name, _in_a_line(text)
        before = node


def _docstrings(body: Iterable[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, (ast.get_docstring(node) or "").partition("\n")[0]


def _of_docstring(text: str, fields: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Parses `name: text` or `one, other: text`, continued by lines with more indentation."""
    lines = text.splitlines()
    for place, line in enumerate(lines):
        entry = re.match(r"(\s+)([a-z_][a-z_0-9]*(?:, [a-z_][a-z_0-9]*)*):\s+(\S.*)$", line)
        if entry is None:
            continue
        rest = []
        for following in lines[place + 1 :]:
            if not following.strip() or len(following) - len(following.lstrip()) <= len(entry[1]):
                break
            rest.append(following)
        for name in entry[2].split(", "):
            if name in fields:
                yield name, _as_a_sentence(_in_a_line(" ".join([entry[3], *rest])))


def _as_a_sentence(text: str) -> str:
    """Capitalizes the text if it begins with an ordinary word rather than a value or a symbol."""
    return text[:1].upper() + text[1:] if re.match(r"[a-z]+ [a-z]", text) else text


def _in_a_line(text: str) -> str:
    return " ".join(text.split())
