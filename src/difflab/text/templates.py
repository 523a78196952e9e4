"""Templates of prompts for zero-shot classification: texts with `{}` where the name of a class goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from difflab.console import printable
from difflab.errors import UserError

PLACE = "{}"
SIMPLE = ("a photo of a {}.",)


def imagenet() -> list[str]:
    """The 80 templates of CLIP's ImageNet classifier (openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb)."""
    text = resources.files("difflab.text").joinpath("imagenet_templates.txt").read_text(encoding="utf-8")
    return text.splitlines()


NAMED: Mapping[str, Callable[[], Sequence[str]]] = {"imagenet": imagenet, "simple": lambda: SIMPLE}
"""Templates for any classes."""


def read_templates(given: str | Sequence[str], named: Mapping[str, Callable[[], Sequence[str]]] = NAMED) -> list[str]:
    """The templates called `given`, those in the lines of that file, or `given` itself, a list.

    Blank lines are left out. Raises UserError if there is no such file, and for a template without exactly one `{}`.
    """
    if not isinstance(given, str):
        return _checked(given, "templates")
    if given in named:
        return _checked(named[given](), f"templates={given}")
    path = Path(given)
    if not path.is_file():
        raise UserError(
            f"templates={printable(given)} is no file, and none of {', '.join(named)}: give one of these, or a text "
            "file with a template in every line"
        )
    return _checked(lines_of_file(path, "templates"), f"templates={printable(given)}")


def filled(template: str, name: str) -> str:
    """The prompt of a class; braces elsewhere have no meaning."""
    return template.replace(PLACE, name)


def lines_of_file(path: Path, key: str) -> list[str]:
    """The lines of a text file, stripped, without the blank ones. Raises UserError unless it is UTF-8."""
    try:
        # Line ends of every system become newlines.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = None
    # UTF-16 without its mark is UTF-8 with zero bytes.
    if text is None or "\0" in text:
        raise UserError(f"{key}={printable(str(path))} is not UTF-8 text: save it as UTF-8")
    return [line.strip() for line in text.split("\n") if line.strip()]


def _checked(templates: Sequence[str], said: str) -> list[str]:
    if not templates:
        raise UserError(f"{said} has no template: write one per line, such as 'a photo of a {PLACE}.'")
    for number, template in enumerate(templates, start=1):
        if (count := template.count(PLACE)) != 1:
            raise UserError(
                f"{said}: template {number}, {printable(template)!r}, has {count or 'no'} {PLACE}; it needs exactly "
                "one, where the name of the class goes"
            )
    return list(templates)
