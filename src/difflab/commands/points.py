"""Several values of a key in one command: `guidance.scale=1,2,4` is three evaluations of one checkpoint."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

from difflab.commands.hydra_app import MULTIRUN, SHOWING
from difflab.errors import UserError
from difflab.tracking.sweep_point import SweepPoint, as_number, given_again, sweep_points

MOST_POINTS = 1000
"""The largest number of points of one command; a longer list is probably a typing error."""


def points_of(command: str, argv: Sequence[str], swept: Sequence[str]) -> list[SweepPoint] | None:
    """Every combination of the values, the last key changing fastest; None if no key has several.

    command: the command of each point. swept: the keys that may have several values.
    Raises UserError for several values of another key, or of a key that is given again later, which would override
    them.
    """
    if any(argument.split("=")[0] in SHOWING | MULTIRUN for argument in argv):
        return None
    choices = {place: values for place, argument in enumerate(argv) if (values := values_of(argument))}
    if not choices:
        return None
    keys = {place: argv[place].partition("=")[0] for place in choices}
    for place, key in keys.items():
        if re.split(r"[./@]", key.lstrip("+"))[0] not in swept:
            raise UserError(f"{argv[place]}: expected one value; several may be given for {', '.join(swept)}")
        again = [argument for argument in argv[place + 1 :] if argument.partition("=")[0] == key]
        if again:
            raise UserError(f"{argv[place]} and {again[0]}: give {key} once, with all of its values")
    total = math.prod(len(values) for values in choices.values())
    if total > MOST_POINTS:
        given = " ".join(argv[place] for place in choices)
        raise UserError(f"{given}: these are {total} points; give at most {MOST_POINTS} at once")
    grid = [dict(zip(choices, combination, strict=True)) for combination in itertools.product(*choices.values())]
    values = [
        {keys[place].lstrip("+"): as_number(_unquoted(text)) for place, text in chosen.items()} for chosen in grid
    ]
    words = [
        [f"{keys[place]}={chosen[place]}" if place in chosen else argument for place, argument in enumerate(argv)]
        for chosen in grid
    ]
    return sweep_points(command, values, words)


def values_of(argument: str) -> list[str]:
    """The values of an argument that has several, in Hydra's own grammar (`a=1,2`, `a=range(1,4)`).

    Raises UserError for a sweep that lists no values, such as glob and interval, and for an endless one.
    """
    if "," not in argument and "(" not in argument:
        return []
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(argument)
    except HydraException:
        # Composing the whole command raises the error for it.
        return []
    if not parsed.is_sweep_override():
        return []
    try:
        values = list(itertools.islice(parsed.sweep_string_iterator(), MOST_POINTS + 1))
    except (HydraException, ValueError):
        values = []
    if not values:
        key = argument.partition("=")[0]
        raise UserError(f"{argument}: this lists no values; write them out, as in {key}=1,2,4")
    if len(values) > MOST_POINTS:
        raise UserError(f"{argument}: more than {MOST_POINTS} values; give fewer at once")
    if again := given_again([as_number(_unquoted(value)) for value in values]):
        one, other = (values[place] for place in again)
        what = f"{one} is given twice" if one == other else f"{one} and {other} are the same value"
        raise UserError(f"{argument}: {what}; give each value once")
    return values


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
