"""difflab: one laboratory for ten diffusion papers.

run = difflab.load("runs/cfg/shapes32/demo")
run.sample(n=16, classes=[2], steps=20, guidance=3.0).grid()
run.evaluate(n=512, metrics="lite0")
difflab.evaluate(samples="theirs.npz", data="shapes32_single", metrics="lite0")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from difflab.errors import UserError

if TYPE_CHECKING:
    from difflab.api import Results, Run

__version__ = "0.1.0"
__all__ = ["UserError", "__version__", "evaluate", "load"]


def load(path: str | Path, *, weights: str | None = None, accelerator: str = "auto") -> Run:
    """Loads a stored model, to sample and measure it.

    path: a run directory, an exported folder, or a checkpoint of a run.
    weights: "ema", the averaged ones, or "raw"; None = the default of each command.
    accelerator: "auto", "cpu", "cuda" or "mps".

    Raises UserError, in one line, if there is no model.
    """
    from difflab.api import Run

    return Run(path, weights=weights, accelerator=accelerator)


def evaluate(
    samples: str | Path,
    *,
    data: str | None = None,
    metrics: str = "shapes",
    n: int | None = None,
    accelerator: str = "auto",
    overrides: Sequence[str] = (),
) -> Results:
    """Evaluates existing images, as `difflab evaluate samples=...` does; no record is stored.

    samples: a folder of images, or an archive (.npz) with arr_0 uint8 [n, H, W, C].
    data: the reference data set, a choice of the group, such as "shapes32_single".
    metrics: a choice of the group, such as "lite0". n: the number of images, from the first; None = all.
    overrides: anything else as on the command line, such as ["data.path=/data/cifar10", "split=val"].

    Raises UserError with the line that the command would print.
    """
    from difflab.api import evaluate_samples

    return evaluate_samples(samples, data=data, metrics=metrics, n=n, accelerator=accelerator, overrides=overrides)
