"""The commands of a kill campaign, each with what its finished result is: a digest of every file that counts."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

IMAGE_SIZE = 16
DATA = ("data", "make", "source=shapes", f"resolution={IMAGE_SIZE}", "objects=1", "sizes=[large]")
TRAINING = (
    "experiment=cfg/shapes32",
    f"data.image_size={IMAGE_SIZE}",
    "data.batch_size=4",
    "network.base_channels=32",
    "network.channel_mult=[1,2]",
    "network.attention_resolutions=[4]",
    "network.norm_groups=8",
    "network.blocks_per_level=1",
    "network.dropout=0.1",
    "optimizer.schedule.warmup_steps=2",
    "trainer.log_every_steps=5",
    "trainer.val_every_steps=15",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "callbacks=evaluation",
    "callbacks.evaluation.every_steps=30",
    "callbacks.evaluation.n=16",
    "callbacks.sample_grid.every_steps=20",
    "callbacks.sample_grid.n=4",
    "callbacks.checkpoint.every_steps=10",
    "metrics=shapes",
    "metrics.kid.subset_size=8",
    "sampler.steps=5",
)
DRAWING = ("accelerator=cpu", "precision=32-true", "sampler=ddim", "batch_size=8")
JUDGING = (*DRAWING, "metrics=shapes", "metrics.kid.subset_size=8", "logger=csv")
STEPS = 60

MEASURED_TIMES = ("throughput/images_per_s", "throughput/data_wait_frac")
NOT_NUMBERS = {"seconds", "versions"}

Digests = dict[str, str]


@dataclass(frozen=True)
class Kind:
    """One kind of work: its command, run in a folder that has `data` and `runs` of `prepared`, and its result.

    digests: folder -> a digest for every file of the finished result that must not depend on interruptions.
    """

    name: str
    arguments: tuple[str, ...]
    digests: Callable[[Path], Digests]
    needs: tuple[str, ...] = ("data",)


def kinds() -> list[Kind]:
    """Everything that can be killed."""
    run = "run=runs/cfg/shapes32/model"
    return [
        Kind("data make", (*DATA, "out=made", "n=3000", "val=200", "shard_size=250"), _every_file("made"), needs=()),
        Kind("train", ("train", *TRAINING, "data.path=data", "name=killed", f"trainer.max_steps={STEPS}"), _run_files),
        Kind(
            "sample", ("sample", run, *DRAWING, "n=48", "sampler.steps=20", "out=drawn"), _every_file("drawn"), _MODEL
        ),
        Kind("evaluate", ("evaluate", run, *JUDGING, "n=32", "sampler.steps=20", "out=judged"), _records, _MODEL),
        Kind(
            "evaluate, several values",
            ("evaluate", run, *JUDGING, "n=16", "sampler.steps=10", "guidance.scale=1,2,3", "out=judged"),
            _records,
            _MODEL,
        ),
        Kind("sweep run", ("sweep", "run", "sweep.yaml", "--out", "swept"), _swept, _MODEL),
    ]


_MODEL = ("data", "runs", "sweep.yaml")
SWEEP = {
    "program": "difflab",
    "method": "grid",
    "name": "killed",
    "parameters": {"guidance.scale": {"values": [1.0, 2.0]}, "sampler.steps": {"values": [5, 10]}},
    "command": [
        *("${env}", "${program}", "evaluate", "run=runs/cfg/shapes32/model", *JUDGING, "n=16"),
        "${args_no_hyphens}",
    ],
}


def prepare(folder: Path, needed: Set[str], difflab: Callable[[Sequence[str], Path], None]) -> None:
    """Make what the commands start from, where it is needed: a data set, a trained model, a sweep file."""
    folder.mkdir(parents=True)
    if not needed:
        return
    difflab((*DATA, "out=data", "n=200", "val=40"), folder)
    if not needed & {"runs"}:
        return
    start = ("train", *TRAINING, "data.path=data", "name=model", "trainer.max_steps=20", "logger=csv")
    difflab((*start, "callbacks.sample_grid=null", "callbacks.evaluation=null"), folder)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP), encoding="utf-8")


def differences(result: Digests, undisturbed: Digests) -> list[str]:
    """The files that differ, are missing or are too many."""
    return sorted(name for name in result.keys() | undisturbed.keys() if result.get(name) != undisturbed.get(name))


def _every_file(name: str) -> Callable[[Path], Digests]:
    def digests(folder: Path) -> Digests:
        root = folder / name
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name not in ("lock", ".lock")]
        return {str(path.relative_to(root)): _digest(path.read_bytes()) for path in files}

    return digests


def _run_files(folder: Path) -> Digests:
    run = folder / "runs" / "cfg" / "shapes32" / "killed"
    found = {f"checkpoints/{path.name}": _of_checkpoint(path) for path in (run / "checkpoints").glob("*.ckpt")}
    found |= {f"weights/{path.name}": _digest(path.read_bytes()) for path in (run / "weights").iterdir()}
    found |= {f"samples/{path.name}": _digest(path.read_bytes()) for path in (run / "samples").glob("*.png")}
    found["metrics.csv"] = _digest(_rows(run / "metrics.csv"))
    found["evaluations.jsonl"] = _digest(_lines(run / "evaluations.jsonl"))
    return found


def _records(folder: Path) -> Digests:
    names = ("evaluations.jsonl", "table.csv")
    files = [path for path in sorted((folder / "judged").rglob("*")) if path.name in names]
    return {str(path.relative_to(folder)): _digest(_content(path)) for path in files}


def _swept(folder: Path) -> Digests:
    # The ledger says where each point lies, which is another folder in every trial.
    text = (folder / "swept" / "ledger.jsonl").read_text(encoding="utf-8").replace(str(folder.resolve()), "")
    # What failed once and was done again has two lines; the last one counts.
    last = {entry["digest"]: _plain(entry) for entry in map(json.loads, text.splitlines())}
    found = {"ledger.jsonl": _digest(last)}
    names = ("evaluations.jsonl", "table.csv", "table.md")
    files = [path for path in sorted((folder / "swept").rglob("*")) if path.name in names]
    return found | {str(path.relative_to(folder)): _digest(_content(path)) for path in files}


def _content(path: Path) -> Any:
    if path.suffix == ".jsonl":
        return _lines(path)
    return _plain(json.loads(path.read_text(encoding="utf-8"))) if path.suffix == ".json" else path.read_bytes()


def _lines(path: Path) -> list[str]:
    """The records, each once: an evaluation that was killed behind its last line writes the same records again."""
    records = (_plain(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
    return list(dict.fromkeys(json.dumps(record, sort_keys=True) for record in records))


def _rows(path: Path) -> list[dict[str, str]]:
    """Rows without measured times, and without those that had nothing else."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{k: v for k, v in row.items() if v and k not in MEASURED_TIMES} for row in csv.DictReader(file)]
    return [row for row in rows if row.keys() - {"train/step", "train/images"}]


def _of_checkpoint(path: Path) -> str:
    return _digest(list(checkpoint_digests(path).items()))


def checkpoint_digests(path: Path) -> Digests:
    """A digest for everything that a training checkpoint holds, by its place in it."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    # Lightning counts the validation batches of a sitting, which decide nothing.
    return {where: _digest(value) for where, value in _leaves(content) if ".val_loop." not in where}


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _leaves(value[key], f"{where}/{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{where}/{number}")
    elif isinstance(value, torch.Tensor):
        bits = value.contiguous().reshape(-1).view(torch.uint8).numpy()
        yield where, (str(value.dtype), tuple(value.shape), _digest(bits.tobytes()))
    else:
        yield where, value


def _plain(value: Any) -> Any:
    """Without what is no result: seconds, versions."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if key not in NOT_NUMBERS}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _digest(content: Any) -> str:
    data = content if isinstance(content, bytes) else repr(content).encode()
    return hashlib.sha256(data).hexdigest()[:16]
