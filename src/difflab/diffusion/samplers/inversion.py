"""DDIM inversion: from an image to the noise from which DDIM generates it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Literal

from torch import Tensor

from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.base import RowSpacing, StridedSampler, ascending_steps
from difflab.diffusion.samplers.encode import deterministic
from difflab.diffusion.samplers.part import Part
from difflab.types import Denoised, Denoiser, StepContext

InversionEnd = Literal["pure_noise", "last_row"]


class DDIMInversion(StridedSampler):
    """The reverse ODE step of DDIM section 4.3, up the rows, without noise.

    As in ADM, the image is taken as x at the lowest row (whose noise is below a grey level).

    end: `pure_noise` takes a last step from the highest row to alpha = 0 (ADM's `ddim_reverse_sample`); `last_row`
         stops at the highest row, where DDIM decoding with the same steps starts.
    """

    def __init__(
        self,
        *,
        steps: int | str | Sequence[int] | None = None,
        spacing: RowSpacing = "sections",
        steps_offset: int = 0,
        sigmas: Sequence[float] | None = None,
        end: InversionEnd = "last_row",
    ) -> None:
        super().__init__(steps=steps, spacing=spacing, steps_offset=steps_offset, sigmas=sigmas)
        self.end: InversionEnd = end

    def check(self, part: Part) -> None:
        """Raises ValueError if the part does anything but leave out steps."""
        if part.image is not None or part.region is not None or part.resampling is not None:
            raise ValueError("DDIM inversion goes up from the image that it is called with: no image, region or jumps")

    def contexts(self, process: GaussianProcess) -> Iterator[StepContext]:
        """Yields the rows from the cleanest up, one step less if it stops at the highest."""
        steps = process.num_timesteps - (self.end == "last_row")
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
        return deterministic(denoised, context.next_level), denoised
