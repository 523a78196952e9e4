"""evaluations.jsonl: the records of all measurements, those of training with their `train_step`."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from difflab.files import keep_older, replacing


def is_recorded(path: Path, step: int) -> bool:
    """Whether the evaluation after `step` steps of training has all its records in the file."""
    lines = [_Line(line) for line in _lines(path)]
    # The records of one evaluation are written together: if the next line was cut off, some of them are missing.
    cut_off = any(line.train_step == step and after.broken for line, after in itertools.pairwise(lines))
    return not cut_off and any(line.train_step == step for line in lines)


def forget_after(path: Path, step: int) -> None:
    """Drops the records of training after `step`, those of `step` if they are incomplete, and torn lines.

    Records of other commands are kept. Starting over (step 0) keeps the old file as evaluations.<n>.jsonl.
    """
    lines = _lines(path)
    last = step if is_recorded(path, step) else step - 1
    kept = [line for line in lines if _stays(_Line(line), last)]
    if kept == lines:
        return
    if step == 0:
        keep_older(path)
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(kept))


class _Line:
    """One line: the step of a training record (None: another command's), or a mark that it is no record."""

    def __init__(self, line: bytes) -> None:
        self.broken = not line.endswith(b"\n")
        record = None
        try:
            record = json.loads(line)
        except ValueError:
            self.broken = True
        step = record.get("train_step") if isinstance(record, dict) and not self.broken else None
        self.train_step = step if isinstance(step, int) else None


def _stays(line: _Line, last: int) -> bool:
    return not line.broken and (line.train_step is None or line.train_step <= last)


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.is_file() else []
