"""DDIM run backwards: from an image to the noise that DDIM makes it from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Literal

from torch import Tensor

from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.base import StridedSampler, ascending_steps
from difflab.diffusion.spacing import Spacing
from difflab.types import Denoised, Denoiser, StepContext

InversionEnd = Literal["pure_noise", "last_row"]


class DDIMInversion(StridedSampler):
    """The reverse ODE step of DDIM section 4.3, up the rows; no noise is drawn.

    As ADM does it, the image is taken as x at the lowest row (whose noise is below a grey level).

    end: `pure_noise` takes a last step from the highest row to alpha = 0 (ADM's `ddim_reverse_sample`); `last_row`
         stops at the highest row, where DDIM decoding with the same steps starts.
    """

    def __init__(
        self,
        *,
        steps: int | str | Sequence[int] | None = None,
        spacing: Spacing = "sections",
        steps_offset: int = 0,
        end: InversionEnd = "last_row",
    ) -> None:
        super().__init__(steps=steps, spacing=spacing, steps_offset=steps_offset)
        self.end: InversionEnd = end

    def n_steps(self, process: GaussianProcess) -> int:
        """As many as the process has rows, one less where it stops at the highest."""
        return process.num_timesteps - (self.end == "last_row")

    def contexts(self, process: GaussianProcess) -> Iterator[StepContext]:
        """The rows from the cleanest up."""
        steps = self.n_steps(process)
        for context in islice(ascending_steps(process), steps):
            yield replace(context, n_steps=steps)

    def step(
        self,
        denoiser: Denoiser,
        process: GaussianProcess,
        x: Tensor,
        context: StepContext,
        noise: NoiseSource,
    ) -> tuple[Tensor, Denoised]:
        """x at one row -> x at the next noisier one: alpha' x0 + sigma' eps."""
        denoised = denoiser(x, context)
        return context.next_level.alpha * denoised.x0 + context.next_level.sigma * denoised.eps, denoised
