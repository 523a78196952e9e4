"""What samplers, losses and denoisers ask of any forward process, tabulated or continuous."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from difflab.diffusion.levels.sigmas import exponential_sigmas
from difflab.diffusion.predictions import Number, Prediction, factor, linear
from difflab.types import Denoised, NoiseLevel

if TYPE_CHECKING:
    from difflab.diffusion.levels.sigmas import VPTime
    from difflab.diffusion.process import GaussianProcess

Variance = Literal["fixed_small", "fixed_large", "learned", "learned_range", "interpolated"]


@dataclass(frozen=True)
class Levels:
    """A level for every sample of a batch: alpha and sigma float64 [B, 1, ...] on the CPU, to broadcast over x."""

    alpha: Tensor
    sigma: Tensor

    @classmethod
    def of(cls, levels: Sequence[NoiseLevel], x: Tensor) -> Levels:
        """Those of the samples of x [B, ...]."""
        both = torch.tensor([(level.alpha, level.sigma) for level in levels], dtype=torch.float64)
        alpha, sigma = both.reshape(len(levels), 2, *(1,) * (x.ndim - 1)).unbind(1)
        return cls(alpha, sigma)


class Process(ABC):
    """q(x_t | x_0) = N(alpha x_0, sigma^2 I) with alpha^2 + sigma^2 = 1, at the levels that a network was trained on.

    A process in other coordinates is the same one, and what its network sees of x is a matter of the prediction: EDM's
    x_0 + sigma n is x / alpha, its sigma being our sigma / alpha, the `edm_sigma` of a level.

    Training times lie in [0, time_span): rows of a table (between them, also down to -1, the clean end), or positions
    in [0, 1).

    prediction:   what the network regresses.
    variance:     of the reverse steps p(x_{t-1} | x_t).
    variance_mix: of variance=interpolated.
    sigma_data:   the standard deviation of the data.
    """

    prediction: Prediction
    variance: Variance = "fixed_large"
    variance_mix: float = 0.0
    sigma_data: float = 0.5
    time_span: float = 1.0

    @property
    def learns_variance(self) -> bool:
        """Whether the network's output has twice the channels of x."""
        return self.variance in ("learned", "learned_range")

    @property
    def table(self) -> GaussianProcess | None:
        """The process itself where it has rows to step on, None in continuous time."""
        return None

    # -- training: t is a tensor [B] of times ------------------------------------------------------------------------

    @abstractmethod
    def alpha_sigma(self, t: Tensor, x: Tensor) -> tuple[Number, Number]:
        """alpha and sigma at the times t [B], in the precision of x [B, ...] and to broadcast over it."""

    @abstractmethod
    def network_time(self, t: Tensor) -> Tensor:
        """What the network gets as time: [B] -> float32 [B]."""

    @abstractmethod
    def snr(self, t: Tensor) -> Tensor:
        """alpha^2 / sigma^2, float64 [B]."""

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t [B, ...] = alpha x_0 + sigma noise; DDPM eq. 4."""
        alpha, sigma = self.alpha_sigma(t, x0)
        return alpha * x0 + sigma * noise

    def network_input(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t [B, ...] as the network wants to see it."""
        if not self.prediction.scales_input:
            return x_t
        return x_t * self.prediction.input_scale(*self.alpha_sigma(t, x_t))

    def target(self, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """What the network regresses, [B, ...]."""
        return self.prediction.target(x0, noise, *self.alpha_sigma(t, x0))

    def even_times(self, n: int) -> Tensor:
        """n times evenly spaced from the first on, [n] on the CPU. Raises ValueError for more than there are."""
        return torch.tensor([k * self.time_span / n for k in range(n)], dtype=torch.float32, device="cpu")

    def has_same_time_as(self, other: Process) -> bool:
        """Whether a time means the same noise to a network of the other process: in continuous time it is told that."""
        return other.table is None

    # -- sampling: at one level for the whole batch ------------------------------------------------------------------

    @abstractmethod
    def time_at(self, level: NoiseLevel) -> float:
        """What the network gets as time at a level."""

    @property
    @abstractmethod
    def sigma_range(self) -> tuple[float, float]:
        """The lowest and the highest sigma / alpha that samplers should visit; both finite and above 0."""

    @property
    def vp(self) -> VPTime | None:
        """The linear beta(t) whose time it is in, None for other processes."""
        return None

    def even_levels(self, n: int) -> list[NoiseLevel]:
        """n levels evenly spaced over the sigma range in the time of the process, which here is the log-SNR; the
        noisiest first.
        """
        return [self.level_of_sigma(sigma) for sigma in exponential_sigmas(n, *self.sigma_range).tolist()]

    def level_of_sigma(self, sigma: float) -> NoiseLevel:
        """The level where sigma / alpha is `sigma`, with its (fractional) timestep where there is a table."""
        alpha = (1.0 + sigma * sigma) ** -0.5
        return NoiseLevel(alpha, sigma * alpha)

    def on_levels(self, levels: Sequence[NoiseLevel]) -> GaussianProcess:
        """A table of these levels, the least noisy first, for samplers that step on rows (ancestral, DDIM)."""
        from difflab.diffusion.level_table import LevelTable

        return LevelTable(self, levels)

    def starting_std(self, level: NoiseLevel) -> float:
        """Standard deviation of the noise that sampling starts from at this level: 1, or sigma as in EDM."""
        return level.sigma if self.prediction.adds_noise else 1.0

    def refuse_between_rows(self) -> None:
        """Raise ValueError where the network's output has a meaning on the rows of a table alone."""
        if self.prediction.rows_only:
            raise ValueError(
                f"prediction={self.prediction.name} is the mean of a step on the table and has no meaning between its "
                "rows: use sampler=ancestral or sampler=ddim"
            )

    def predict_at(self, model_output: Tensor, x: Tensor, level: NoiseLevel | Levels) -> Denoised:
        """x_0 and eps that a network output [B, C or 2C, ...] stands for at a level; a learned variance is left out."""
        self.refuse_between_rows()
        out, _ = self.split_output(model_output, x)
        x0_x, x0_out, eps_x, eps_out = self.prediction.views(level.alpha, level.sigma)
        return Denoised(linear(x0_x, x, x0_out, out), linear(eps_x, x, eps_out, out))

    def input_at(self, x: Tensor, level: NoiseLevel | Levels) -> Tensor:
        """x as the network wants to see it (c_in of EDM)."""
        if not self.prediction.scales_input:
            return x
        return x * factor(self.prediction.input_scale(level.alpha, level.sigma), x)

    def split_output(self, model_output: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor | None]:
        """The prediction [B, C, ...] and, where the variance is learned, the variance values [B, C, ...].

        Raises ValueError where the output has not C channels (2C with a learned variance).
        """
        channels = x_t.shape[1]
        expected = 2 * channels if self.learns_variance else channels
        if model_output.shape[1] != expected:
            raise ValueError(
                f"the network gives {model_output.shape[1]} channels for an input of {channels}; "
                f"variance={self.variance} needs {expected}"
            )
        if not self.learns_variance:
            return model_output, None
        prediction, values = model_output.split(channels, dim=1)
        return prediction, values
