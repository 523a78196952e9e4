"""The interface of every forward process, tabulated or continuous, for samplers, losses and denoisers."""

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
    """A noise level for every sample of a batch: alpha and sigma float64 [B, 1, ...] on the CPU, broadcastable to x."""

    alpha: Tensor
    sigma: Tensor

    @classmethod
    def of(cls, levels: Sequence[NoiseLevel], x: Tensor) -> Levels:
        """Stacks one level for each sample of x [B, ...]."""
        both = torch.tensor([(level.alpha, level.sigma) for level in levels], dtype=torch.float64)
        alpha, sigma = both.reshape(len(levels), 2, *(1,) * (x.ndim - 1)).unbind(1)
        return cls(alpha, sigma)


class Process(ABC):
    """q(x_t | x_0) = N(alpha x_0, sigma^2 I) with alpha^2 + sigma^2 = 1, at the levels that a network was trained on.

    A process in other coordinates is the same process; the prediction defines how its network sees x. EDM's
    x_0 + sigma n is x / alpha, and its sigma is our sigma / alpha, the `edm_sigma` of a level.

    Training times lie in [0, time_span): rows of a table (or points between them, down to -1, the clean end), or
    positions in [0, 1).

    prediction:   what the network regresses.
    variance:     variance of the reverse steps p(x_{t-1} | x_t).
    variance_mix: mixing weight for variance=interpolated.
    sigma_data:   standard deviation of the data.
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
        """The process itself if it has rows to step on, None in continuous time."""
        return None

    # -- training: t is a tensor [B] of times ------------------------------------------------------------------------

    @abstractmethod
    def alpha_sigma(self, t: Tensor, x: Tensor) -> tuple[Number, Number]:
        """Returns alpha and sigma at the times t [B], in the precision of x [B, ...] and broadcastable to it."""

    @abstractmethod
    def network_time(self, t: Tensor) -> Tensor:
        """Returns the network's time input: t [B] -> float32 [B]."""

    @abstractmethod
    def snr(self, t: Tensor) -> Tensor:
        """Returns alpha^2 / sigma^2, float64 [B]."""

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Samples x_t [B, ...] = alpha x_0 + sigma noise; DDPM eq. 4."""
        alpha, sigma = self.alpha_sigma(t, x0)
        return alpha * x0 + sigma * noise

    def network_input(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Returns x_t [B, ...] scaled as the network expects its input."""
        if not self.prediction.scales_input:
            return x_t
        return x_t * self.prediction.input_scale(*self.alpha_sigma(t, x_t))

    def target(self, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Returns the network's regression target, [B, ...]."""
        return self.prediction.target(x0, noise, *self.alpha_sigma(t, x0))

    def even_times(self, n: int) -> Tensor:
        """Returns n times evenly spaced from the first one, [n] on the CPU. Raises ValueError if n is too large."""
        return torch.tensor([k * self.time_span / n for k in range(n)], dtype=torch.float32, device="cpu")

    def has_same_time_as(self, other: Process) -> bool:
        """Whether a given time means the same noise level to networks of both processes."""
        return other.table is None

    # -- sampling: at one level for the whole batch ------------------------------------------------------------------

    @abstractmethod
    def time_at(self, level: NoiseLevel) -> float:
        """Returns the network's time input at a level."""

    @property
    @abstractmethod
    def sigma_range(self) -> tuple[float, float]:
        """The lowest and highest sigma / alpha that samplers should visit; both finite and above 0."""

    @property
    def vp(self) -> VPTime | None:
        """The linear beta(t) that defines its time, None for other processes."""
        return None

    def even_levels(self, n: int) -> list[NoiseLevel]:
        """Returns n levels, noisiest first, evenly spaced over the sigma range in the time of the process (here the
        log-SNR).
        """
        return [self.level_of_sigma(sigma) for sigma in exponential_sigmas(n, *self.sigma_range).tolist()]

    def level_of_sigma(self, sigma: float) -> NoiseLevel:
        """Returns the level at which sigma / alpha is `sigma`, with its (fractional) timestep if there is a table."""
        alpha = (1.0 + sigma * sigma) ** -0.5
        return NoiseLevel(alpha, sigma * alpha)

    def on_levels(self, levels: Sequence[NoiseLevel]) -> GaussianProcess:
        """Returns a table of these levels, least noisy first, for samplers that step on rows (ancestral, DDIM)."""
        from difflab.diffusion.level_table import LevelTable

        return LevelTable(self, levels)

    def starting_std(self, level: NoiseLevel) -> float:
        """Returns the standard deviation of the initial noise at this level: 1, or sigma as in EDM."""
        return level.sigma if self.prediction.adds_noise else 1.0

    def refuse_between_rows(self) -> None:
        """Raises ValueError if the network's output is defined only on the rows of a table."""
        if self.prediction.rows_only:
            raise ValueError(
                f"prediction={self.prediction.name} is the mean of a step on the table, undefined between its rows: "
                "use sampler=ancestral or sampler=ddim"
            )

    def predict_at(self, model_output: Tensor, x: Tensor, level: NoiseLevel | Levels) -> Denoised:
        """Converts a network output [B, C or 2C, ...] at a level to x_0 and eps; a learned variance is ignored."""
        self.refuse_between_rows()
        out, _ = self.split_output(model_output, x)
        x0_x, x0_out, eps_x, eps_out = self.prediction.views(level.alpha, level.sigma)
        return Denoised(linear(x0_x, x, x0_out, out), linear(eps_x, x, eps_out, out))

    def input_at(self, x: Tensor, level: NoiseLevel | Levels) -> Tensor:
        """Returns x scaled as the network expects its input (c_in of EDM)."""
        if not self.prediction.scales_input:
            return x
        return x * factor(self.prediction.input_scale(level.alpha, level.sigma), x)

    def split_output(self, model_output: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor | None]:
        """Splits an output into the prediction [B, C, ...] and, if the variance is learned, its values [B, C, ...].

        Raises ValueError if the output does not have C channels (2C with a learned variance).
        """
        channels = x_t.shape[1]
        expected = 2 * channels if self.learns_variance else channels
        if model_output.shape[1] != expected:
            raise ValueError(
                f"the network outputs {model_output.shape[1]} channels for an input of {channels}; "
                f"variance={self.variance} needs {expected}"
            )
        if not self.learns_variance:
            return model_output, None
        prediction, values = model_output.split(channels, dim=1)
        return prediction, values
