"""Reads offline W&B runs, without an account."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difflab.errors import UserError
from difflab.tracking.clock import IMAGES, STEP

Record = dict[str, Any]
_NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


@dataclass
class OfflineRun:
    """One W&B run, assembled from all its offline segments.

    name, job_type, group, project: as W&B shows them; empty if the run has none.
    config:    nested, as it was at the end.
    history:   one dict per logging call; media keys are flattened (`samples/grid.path`). Rows that a resumed segment
               trained again are omitted.
    media:     key -> files, oldest first.  tables: key -> table files (JSON).
    artifacts: the artifact records: name, type, aliases, metadata (parsed) and manifest.
    metrics:   the define_metric records.
    exit_code: of the last segment, None while it runs or if it was killed.
    """

    run_id: str
    segments: list[Path]
    name: str = ""
    job_type: str = ""
    group: str = ""
    project: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[Record] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    media: dict[str, list[Path]] = field(default_factory=dict)
    tables: dict[str, list[Path]] = field(default_factory=dict)
    artifacts: list[Record] = field(default_factory=list)
    metrics: list[Record] = field(default_factory=list)
    exit_code: int | None = None

    def series(self, key: str) -> list[tuple[int, Any]]:
        """(train/step, value) of every row that has `key`."""
        return [(row[STEP], row[key]) for row in self.history if key in row and STEP in row]


def read_offline_run(path: Path | str) -> OfflineRun:
    """Reads a run directory, its `wandb` folder, one offline segment or a .wandb file.

    Raises UserError if there is no offline run, or if there are several: a folder holds one.
    """
    segments = [(file, _records(file)) for file in _log_files(Path(path))]
    ids = {record["run"]["run_id"] for _, records in segments for record in records if record["type"] == "run"}
    if not ids:
        raise UserError(f"{path} holds no row yet: W&B's process was killed before it wrote any, or has just started")
    if len(ids) != 1:
        raise UserError(f"{path} holds {len(ids)} W&B runs ({', '.join(sorted(ids))}); give the folder of one run")
    segments.sort(key=lambda segment: _start_time(segment[1]))
    run = OfflineRun(ids.pop(), [file.parent for file, _ in segments])
    for file, records in segments:
        _add_segment(run, file.parent / "files", records)
    return run


def _add_segment(run: OfflineRun, files: Path, records: Iterable[Record]) -> None:
    history: list[Record] = []
    run.exit_code = None
    for record in records:
        kind = record["type"]
        content = record.get(kind, {})
        if kind in ("run", "config"):
            _update(run.config, content.get("config", content))
            if kind == "run":
                run.name, run.job_type = content.get("display_name", ""), content.get("job_type", "")
                run.group, run.project = content.get("run_group", ""), content.get("project", "")
        elif kind == "history":
            history.append(_finite_names(content["item"]))
        elif kind == "summary":
            run.summary.update(_finite_names(content.get("update", {})))
        elif kind == "metric":
            run.metrics.append(content)
        elif kind == "artifact":
            run.artifacts.append({**content, "metadata": json.loads(content.get("metadata") or "{}")})
        elif kind == "exit":
            run.exit_code = int(content.get("exit_code", 0))
    _drop_repeated(run, history)
    run.history += history
    for row in history:
        for key, value in row.items():
            if key.endswith("._type"):
                _add_media(run, files, key.removesuffix("._type"), value, row)


def _add_media(run: OfflineRun, files: Path, key: str, kind: str, row: Record) -> None:
    if kind == "table-file":
        run.tables.setdefault(key, []).append(files / row[f"{key}.path"])
    elif kind == "image-file":
        run.media.setdefault(key, []).append(files / row[f"{key}.path"])
    elif kind == "images/separated":
        run.media.setdefault(key, []).extend(files / name for name in row[f"{key}.filenames"])


def _drop_repeated(run: OfflineRun, history: list[Record]) -> None:
    first = min((row[STEP] for row in history if STEP in row), default=None)
    if first is None:
        return
    # What was repeated at the step of the checkpoint stands next to what was logged there before it.
    again = {key for row in history if row.get(STEP) == first for key in row if not _is_clock(key)}
    run.history = [
        row for row in run.history if row.get(STEP, -1) < first or (row[STEP] == first and not again.intersection(row))
    ]


def _is_clock(key: str) -> bool:
    return key in (STEP, IMAGES) or key.startswith("_")


def _update(config: dict[str, Any], content: Record) -> None:
    config.update({key: value for key, value in content.get("update", {}).items() if key != "_wandb"})


def _finite_names(row: Record) -> Record:
    return {key: _NOT_FINITE.get(value, value) if isinstance(value, str) else value for key, value in row.items()}


def _start_time(records: list[Record]) -> str:
    return next((record["run"].get("start_time", "") for record in records if record["type"] == "run"), "")


def _log_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for pattern in ("*.wandb", "offline-run-*/*.wandb", "wandb/offline-run-*/*.wandb"):
        if found := sorted(path.glob(pattern)):
            return found
    raise UserError(f"{path} holds no offline W&B run; give a run directory that was logged with logger=wandb")


def _records(file: Path) -> list[Record]:
    # The program next to this Python, so that reader and writer have the same version.
    program = shutil.which("wandb", path=str(Path(sys.executable).parent)) or shutil.which("wandb")
    if program is None:
        raise UserError("the wandb command is not installed beside this Python; pip install wandb")
    done = subprocess.run([program, "leet", "inspect", "--json", str(file)], capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"wandb cannot read {file}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]
