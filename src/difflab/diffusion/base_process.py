"""What samplers, losses and denoisers ask of any forward process, tabulated or continuous."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from difflab.diffusion.parametrisation import Parametrisation, input_scale, views
from difflab.types import Denoised, NoiseLevel

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

    A process in EDM's coordinates (x_0 + sigma n) is the same one: its sigma is our sigma / alpha, which is called the
    `noise` of a level here, and its x is x / alpha.

    variance:   of the reverse steps p(x_{t-1} | x_t).
    sigma_data: the standard deviation of the data, for prediction=edm.
    time_span:  training times lie in [0, time_span): rows of a table (between them, also down to -1, the clean end), or
                positions in [0, 1).
    """

    variance: Variance
    sigma_data: float = 0.5
    time_span: float

    @property
    def learns_variance(self) -> bool:
        """Whether the network's output has twice the channels of x."""
        return self.variance in ("learned", "learned_range")

    # -- training: t is a tensor [B] of times ------------------------------------------------------------------------

    @abstractmethod
    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t [B, ...] = alpha x_0 + sigma noise; DDPM eq. 4."""

    @abstractmethod
    def network_time(self, t: Tensor) -> Tensor:
        """What the network gets as time: [B] -> float32 [B]."""

    @abstractmethod
    def network_input(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t [B, ...] as the network wants to see it."""

    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """What the network regresses, [B, ...]."""

    @abstractmethod
    def snr(self, t: Tensor) -> Tensor:
        """alpha^2 / sigma^2, float64 [B]."""

    # -- sampling: at one level for the whole batch ------------------------------------------------------------------

    @property
    @abstractmethod
    def parametrisation(self) -> Parametrisation:
        """What the network regresses at a level. Raises ValueError where that needs a row of a table."""

    @abstractmethod
    def time_at(self, level: NoiseLevel) -> float:
        """What the network gets as time at a level."""

    @abstractmethod
    def level_of_noise(self, noise: float) -> NoiseLevel:
        """The level where sigma / alpha is `noise`, with its (fractional) timestep where there is a table."""

    @property
    @abstractmethod
    def noise_range(self) -> tuple[float, float]:
        """The lowest and the highest sigma / alpha that samplers should visit; both finite and above 0."""

    @abstractmethod
    def starting_std(self, level: NoiseLevel) -> float:
        """Standard deviation of the noise that sampling starts from at this level: 1, or sigma as in EDM."""

    def predict_at(self, model_output: Tensor, x: Tensor, level: NoiseLevel | Levels) -> Denoised:
        """x_0 and eps that a network output [B, C or 2C, ...] stands for at a level; a learned variance is left out."""
        out, _ = self.split_output(model_output, x)
        x0_x, x0_out, eps_x, eps_out = views(self.parametrisation, level.alpha, level.sigma, self.sigma_data)
        return Denoised(_linear(x0_x, x, x0_out, out), _linear(eps_x, x, eps_out, out))

    def input_at(self, x: Tensor, level: NoiseLevel | Levels) -> Tensor:
        """x as the network wants to see it (c_in of EDM)."""
        scale = input_scale(self.parametrisation, level.alpha, level.sigma, self.sigma_data)
        return x if isinstance(scale, float) and scale == 1.0 else x * _factor(scale, x)

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


def _linear(a: float | Tensor, x: Tensor, b: float | Tensor, out: Tensor) -> Tensor:
    # 0 x is left out and not added: where alpha or sigma is 0, the other factor may be infinite.
    if isinstance(a, float) and a == 0.0:
        return out if isinstance(b, float) and b == 1.0 else _factor(b, out) * out
    return _factor(a, x) * x + _factor(b, out) * out


def _factor(value: float | Tensor, x: Tensor) -> float | Tensor:
    # Of every sample's level: worked out in float64 on the CPU, used as x is.
    return value.to(x) if isinstance(value, Tensor) else value
