"""Classes by number or by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from difflab.errors import UserError

SHOWN = 8


def class_numbers(given: Sequence[int | str], classes: int, names: Sequence[str] | None, where: str = "") -> list[int]:
    """Converts classes given by number or by name to numbers.

    classes: the number of classes. names: their names, None if unknown.
    where: prefix of error messages, as in `FILE, line 3: label`.
    Raises UserError for a number that is out of range or the name of another class, and for an unknown name, suggesting
        the nearest one.
    """
    return [_number(one, classes, names, f"{where}: " if where else "") for one in given]


def _number(one: int | str, classes: int, names: Sequence[str] | None, where: str) -> int:
    if isinstance(one, int):
        if names is not None and str(one) in names and names.index(str(one)) != one:
            number = names.index(str(one))
            shown = f"class {one} is called {names[one]!r}" if 0 <= one < len(names) else f"there is no class {one}"
            raise UserError(
                f"{where}{one} is a number, and {shown}, while class {number} is called '{one}': give {number}, or the "
                f"name in quotes, as in 'classes=[\"{one}\"]'"
            )
        if not 0 <= one < classes:
            raise UserError(f"{where}class {one} is not in 0..{classes - 1}, the classes of this model")
        return one
    if names is None:
        raise UserError(
            f"{where}{one!r} is a name, and the names of this model's classes are unknown: give numbers, "
            f"0..{classes - 1}"
        )
    found = [number for number, name in enumerate(names) if name == one]
    if len(found) > 1:
        raise UserError(f"{where}classes {found[0]} and {found[1]} are both called {one!r}: give the number")
    if not found:
        near = difflib.get_close_matches(one, names, n=1, cutoff=0.5)
        more = ", ..." if len(names) > SHOWN else ""
        hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(names[:SHOWN])}{more}"
        raise UserError(f"{where}no class of this model is called {one!r}; {hint}")
    return found[0]
