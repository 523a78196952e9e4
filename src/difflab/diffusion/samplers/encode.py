"""Encodes an image as x at a noise level: by adding noise, or by inverting the probability flow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.types import Denoised, Denoiser, NoiseLevel, StepContext


def noised(image: Tensor, level: NoiseLevel, eps: Tensor) -> Tensor:
    """Returns x [B, ...] of q(x_t | image) for this eps: DDPM eq. 4, the start of SDEdit (Meng et al. 2022)."""
    return level.alpha * image + level.sigma * eps


def inverted(denoiser: Denoiser, process: Process, image: Tensor, steps: Sequence[StepContext]) -> Tensor:
    """Returns x [B, ...] at the first level of `steps`, from which DDIM approximately recovers the image; no noise.

    DDIM's reverse ODE (Song et al. 2021a, section 4.3) goes up the levels of the steps. As in ADM, the image is taken
    as x at the lowest row of the table, whose noise is below a grey level; if no step is there, the inversion starts
    there nevertheless. One network call per level.
    """
    rungs = [StepContext(0, 0, step.level, step.level, step.table_index) for step in reversed(steps)]
    lowest = _lowest(process)
    if lowest is not None and lowest.edm_sigma < rungs[0].level.edm_sigma * (1.0 - 1e-6):
        rungs = [StepContext(0, 0, lowest, lowest), *rungs]
    x = image
    for index, (here, there) in enumerate(pairwise(rungs)):
        step = StepContext(index, len(rungs) - 1, here.level, there.level, here.table_index)
        x = deterministic(denoiser(x, step), there.level)
    return x


def deterministic(denoised: Denoised, level: NoiseLevel) -> Tensor:
    """Returns x at a level from a prediction, up or down: alpha x0 + sigma eps; DDIM eq. 12 with eta = 0."""
    return level.alpha * denoised.x0 + level.sigma * denoised.eps


def _lowest(process: Process) -> NoiseLevel | None:
    """Returns the least noisy level of a model, or None if it is defined only on the kept rows."""
    if process.table is None:
        return process.level_of_sigma(process.sigma_range[0])
    return None if process.prediction.rows_only else process.table.base.level(0)
