"""From an image to x at a noise level: noised, or inverted along the probability flow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.types import Denoised, Denoiser, NoiseLevel, StepContext


def noised(image: Tensor, level: NoiseLevel, eps: Tensor) -> Tensor:
    """x [B, ...] of q(x_t | image) for this eps: DDPM eq. 4, as SDEdit begins (Meng et al. 2022)."""
    return level.alpha * image + level.sigma * eps


def inverted(denoiser: Denoiser, process: Process, image: Tensor, steps: Sequence[StepContext]) -> Tensor:
    """x [B, ...] at the first level of `steps`, from which DDIM comes back to about the image; no noise is drawn.

    DDIM's reverse ODE (Song et al. 2021a, section 4.3) goes up the levels that the steps come down. As ADM does it, the
    image is taken as x at the lowest row of the table, whose noise is below a grey level; where no step is there, the
    way up begins there all the same. One network call a level.
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
    """x at a level along the prediction, up or down: alpha x0 + sigma eps; DDIM eq. 12 with eta = 0."""
    return level.alpha * denoised.x0 + level.sigma * denoised.eps


def _lowest(process: Process) -> NoiseLevel | None:
    """The least noisy level of a model, or None where it can only be asked on the rows that are kept."""
    if process.table is None:
        return process.level_of_sigma(process.sigma_range[0])
    return None if process.prediction.rows_only else process.table.base.level(0)
