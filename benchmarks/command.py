"""What the benchmarks' command lines share."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from difflab.errors import UserError


def parser(module: str, description: str, *, rounds: int, warmup: int) -> argparse.ArgumentParser:
    """The options every benchmark has: how many rounds count, how many do not, and a line of JSON at the end."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=description)
    made.add_argument("--rounds", type=at_least(1), default=rounds, help="rounds that count (default %(default)s)")
    made.add_argument("--warmup", type=at_least(0), default=warmup, help="rounds that do not (default %(default)s)")
    made.add_argument("--json", action="store_true", help="end with one line of JSON")
    return made


def print_lines(*lines: str) -> None:
    """To stdout at once: some benchmarks take minutes."""
    for line in lines:
        print(line, flush=True)


def print_json(wanted: bool, content: dict[str, Any]) -> None:
    """The last line of a benchmark's output."""
    if wanted:
        print_lines(json.dumps(content))


def run(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run a benchmark as a program; mistakes end in one line and status 2, as in `difflab`."""
    logging.getLogger("difflab").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*does not have a deterministic implementation.*")
    try:
        main(None)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that takes whole numbers from `least` up."""

    def read(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return read


def seconds(text: str) -> float:
    """The type of an option that takes a length of time."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return value
