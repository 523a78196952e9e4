"""DDIM (Song et al. 2021)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from difflab.diffusion.guidance.base import shift_eps
from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.process import CLEAN, GaussianProcess
from difflab.diffusion.samplers.base import RowSpacing, StridedSampler, row_of
from difflab.types import Denoised, Denoiser, NoiseLevel, StepContext

FinalLevel = Literal["clean", "first"]
Stride = Literal["listed", "constant"]


class DDIMSampler(StridedSampler):
    """DDIM eq. 12, with the noise of eq. 16, sampled only in steps that add noise.

    eta:          0 is deterministic, 1 has the posterior variance of the (respaced) process.
    final_level:  where the last step ends: the clean end, or training step 0 (`set_alpha_to_one=False` of diffusers;
                  latent diffusion).
    stride:       `listed` goes to the next kept step; `constant` always goes down by T // steps, as in diffusers' DDIM
                  (the two differ for spacing=linspace).
    """

    def __init__(
        self,
        *,
        steps: int | str | Sequence[int] | None = None,
        spacing: RowSpacing = "sections",
        steps_offset: int = 0,
        sigmas: Sequence[float] | None = None,
        eta: float = 0.0,
        final_level: FinalLevel = "clean",
        stride: Stride = "listed",
    ) -> None:
        super().__init__(steps=steps, spacing=spacing, steps_offset=steps_offset, sigmas=sigmas)
        refuse_constant(stride, listed=spacing == "listed")
        if eta < 0:
            raise ValueError(f"eta={eta} must be 0 (deterministic) or more")
        self.eta = eta
        self.final_level: FinalLevel = final_level
        self.stride: Stride = stride

    def contexts(self, process: GaussianProcess) -> Iterator[StepContext]:
        """Yields the rows from the noisiest down, each with the level its step goes to."""
        for context in super().contexts(process):
            yield dataclasses.replace(context, next_level=self._next_level(process, row_of(context)))

    def step(
        self,
        denoiser: Denoiser,
        process: GaussianProcess,
        x: Tensor,
        context: StepContext,
        noise: NoiseSource,
    ) -> tuple[Tensor, Denoised]:
        """x at `context.level` -> x at the next level; DDIM eq. 12."""
        row = row_of(context)
        context = dataclasses.replace(context, next_level=self._next_level(process, row))
        denoised = denoiser(x, context)
        x0, eps = denoised.x0, denoised.eps
        # Pure noise carries no information about x0 or its class: there is no score to guide by.
        shifted = shift_eps(denoiser, eps, x, context) if context.level.alpha > 0.0 else eps
        if shifted is not eps:
            x0, eps = process.x0_from_eps(shifted, x, row), shifted
        spread = self.eta * posterior_std(context.level, context.next_level)
        direction = math.sqrt(max(context.next_level.sigma**2 - spread**2, 0.0))
        sample = context.next_level.alpha * x0 + direction * eps
        if spread > 0:
            sample = sample + spread * noise.randn_like(x)
        return sample, denoised

    def _next_level(self, process: GaussianProcess, row: int) -> NoiseLevel:
        base = process.base
        last = CLEAN if self.final_level == "clean" else base.level(0)
        if self.stride == "listed":
            return process.level(row - 1) if row > 0 else last
        following = int(process.timestep_map[row]) - base.num_timesteps // process.num_timesteps
        return base.level(following) if following >= 0 else last


def refuse_constant(stride: Stride, *, listed: bool) -> None:
    """Raises ValueError if a constant stride is combined with listed levels."""
    if listed and stride == "constant":
        raise ValueError("stride=constant does not visit the levels of spacing=listed: use stride=listed")


def posterior_std(level: NoiseLevel, next_level: NoiseLevel) -> float:
    """sqrt((1 - ab') / (1 - ab)) sqrt(1 - ab / ab'), ab at `level`, ab' at `next_level`; DDIM eq. 16 with eta = 1."""
    ratio = (level.alpha / next_level.alpha) ** 2
    return next_level.sigma / level.sigma * math.sqrt(max(1.0 - ratio, 0.0))
