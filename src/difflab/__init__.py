"""difflab: one laboratory for ten diffusion papers.

run = difflab.load("runs/cfg/shapes32/demo")
run.sample(n=16, classes=[2], steps=20, guidance=3.0).grid()
run.evaluate(n=512, metrics="lite0")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from difflab.errors import UserError

if TYPE_CHECKING:
    from difflab.api import Run

__version__ = "0.1.0"
__all__ = ["UserError", "__version__", "load"]


def load(path: str | Path, *, weights: str = "ema", accelerator: str = "auto") -> Run:
    """A stored model, to draw from and to measure.

    path: a run directory, an exported folder, or a checkpoint of a run.
    weights: "ema", the averaged ones, or "raw". accelerator: "auto", "cpu", "cuda" or "mps".

    Raises UserError, in one line, where there is no model.
    """
    from difflab.api import Run

    return Run(path, weights=weights, accelerator=accelerator)
