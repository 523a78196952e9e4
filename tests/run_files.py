"""Two runs compared by what they left on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from difflab.tracking.csv_rows import read_csv

TIMES = ("throughput/images_per_s", "throughput/data_wait_frac")


def find_run(root: Path, experiment: str = "ddpm/shapes32") -> Path:
    """The only run below root/runs."""
    (run,) = (root / "runs" / experiment).iterdir()
    return run


def checkpoint(run: Path, name: str = "last.ckpt") -> dict[str, Any]:
    """A checkpoint of a run directory."""
    return torch.load(run / "checkpoints" / name, weights_only=True)


def rows(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without measured times."""
    kept = [{key: cell for key, cell in row.items() if key not in TIMES} for row in read_csv(run / "metrics.csv")]
    return [row for row in kept if row.keys() - {"train/step", "train/images"}]


def losses(run: Path) -> list[float]:
    """train/loss of every row that has it."""
    return [float(row["train/loss"]) for row in rows(run) if "train/loss" in row]


def exported(run: Path) -> dict[str, Any]:
    """The exported weights and their metadata."""
    with safe_open(run / "weights" / "ema.safetensors", framework="pt") as file:
        return {"metadata": file.metadata(), **{key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118


def differing(a: Any, b: Any, where: str = "") -> list[str]:
    """The places in which two nests of containers differ; tensors are compared bit by bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        return [] if same else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        missing = [f"{where}/{key}" for key in a.keys() ^ b.keys()]
        return missing + [place for key in a.keys() & b.keys() for place in differing(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [place for i, (x, y) in enumerate(zip(a, b)) for place in differing(x, y, f"{where}/{i}")]
    return [] if a == b else [where]


def assert_same_run(run: Path, reference: Path) -> None:
    """Both ended with the same bits: weights, average, optimizer, loader, clock, log and exported weights."""
    places = differing(checkpoint(run), checkpoint(reference))
    # Lightning counts the validation batches of a sitting, which decide nothing.
    assert [place for place in places if ".val_loop." not in place][:5] == []
    assert rows(run) == rows(reference)
    assert differing(exported(run), exported(reference)) == []
