"""Predictions: a network's output at one noise level as linear views of x0 and eps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from torch import Tensor

from difflab.config.axes import PREDICTIONS
from difflab.types import Denoised

if TYPE_CHECKING:
    from difflab.diffusion.process import GaussianProcess
    from difflab.diffusion.tables import Time

Number = float | Tensor


@dataclass(frozen=True)
class PreviousDenoised(Denoised):
    """The output of a network that predicts the mean of x_{t-1}: `previous` [B, ...] is that mean, never clipped."""

    previous: Tensor | None = None


class Views(NamedTuple):
    """x0 = x0_x x + x0_out F and eps = eps_x x + eps_out F, for an input x = alpha x0 + sigma eps and an output F."""

    x0_x: Number
    x0_out: Number
    eps_x: Number
    eps_out: Number


@dataclass(frozen=True)
class Prediction(ABC):
    """What a network regresses. alpha and sigma are floats, or tensors that broadcast to x [B, ...].

    sigma_data: standard deviation of the data, for predictions that use it.

    name:         its name in the configuration.
    rows_only:    whether it belongs to a step of a table and is undefined between rows.
    needs_signal: whether x0 cannot be recovered from it at alpha = 0.
    scales_input: whether the network's input is a scaled x.
    adds_noise:   whether the network expects x0 + sigma eps (EDM), so that sampling starts from sigma eps.
    """

    name: ClassVar[str]
    rows_only: ClassVar[bool] = False
    needs_signal: ClassVar[bool] = False
    scales_input: ClassVar[bool] = False
    adds_noise: ClassVar[bool] = False

    sigma_data: float = 0.5

    @abstractmethod
    def views(self, alpha: Number, sigma: Number) -> Views:
        """Returns the coefficients that give x0 and eps from the output."""

    @abstractmethod
    def target(self, x0: Tensor, eps: Tensor, alpha: Number, sigma: Number) -> Tensor:
        """Returns the regression target, [B, ...], from x0 and eps of that shape."""

    def input_scale(self, alpha: Number, sigma: Number) -> Number:
        """Returns the scale of the network's input (c_in of EDM table 1, for x / alpha)."""
        return 1.0

    def error_per_x0_error(self, snr: Tensor) -> Tensor | float:
        """Returns the squared error of the output for a unit error of x0, at snr = alpha^2 / sigma^2 [B]."""
        return (1.0 / self.views((snr / (1.0 + snr)).sqrt(), (1.0 + snr).rsqrt()).x0_out) ** 2

    @property
    def guided_as(self) -> Prediction:
        """The prediction in which guidance is rescaled."""
        return self

    # -- on the rows of a table ----------------------------------------------------------------------------------------

    def target_on(self, process: GaussianProcess, x0: Tensor, eps: Tensor, x_t: Tensor, t: Time) -> Tensor:
        """Returns the regression target at times t, [B, ...]."""
        return self.target(x0, eps, *process.alpha_sigma(t, x0))

    def read_on(self, process: GaussianProcess, out: Tensor, x_t: Tensor, t: Time) -> Denoised:
        """Converts an output [B, C, ...] at times t to x0 and eps."""
        return self.read(out, x_t, *process.alpha_sigma(t, x_t))

    def read(self, out: Tensor, x: Tensor, alpha: Number, sigma: Number) -> Denoised:
        """Converts an output [B, C, ...] to x0 and eps."""
        x0_x, x0_out, eps_x, eps_out = self.views(alpha, sigma)
        return Denoised(linear(x0_x, x, x0_out, out), linear(eps_x, x, eps_out, out))


class Eps(Prediction):
    """The noise (DDPM, section 3.2)."""

    name = "eps"
    needs_signal = True

    def views(self, alpha: Number, sigma: Number) -> Views:
        return Views(1.0 / alpha, -sigma / alpha, 0.0, 1.0)

    def target(self, x0: Tensor, eps: Tensor, alpha: Number, sigma: Number) -> Tensor:
        return eps

    def error_per_x0_error(self, snr: Tensor) -> Tensor:
        return snr

    def read(self, out: Tensor, x: Tensor, alpha: Number, sigma: Number) -> Denoised:
        """Converts eps to x0; DDPM eq. 15."""
        return Denoised((x - sigma * out) / alpha, out)


class X0(Prediction):
    """The clean image."""

    name = "x0"

    def views(self, alpha: Number, sigma: Number) -> Views:
        return Views(0.0, 1.0, 1.0 / sigma, -alpha / sigma)

    def target(self, x0: Tensor, eps: Tensor, alpha: Number, sigma: Number) -> Tensor:
        return x0

    def error_per_x0_error(self, snr: Tensor) -> float:
        return 1.0

    def read(self, out: Tensor, x: Tensor, alpha: Number, sigma: Number) -> Denoised:
        return Denoised(out, (x - alpha * out) / sigma)


class V(Prediction):
    """alpha eps - sigma x0 (Salimans and Ho 2022)."""

    name = "v"

    def views(self, alpha: Number, sigma: Number) -> Views:
        return Views(alpha, -sigma, sigma, alpha)

    def target(self, x0: Tensor, eps: Tensor, alpha: Number, sigma: Number) -> Tensor:
        return alpha * eps - sigma * x0

    def error_per_x0_error(self, snr: Tensor) -> Tensor:
        return snr + 1.0

    def read(self, out: Tensor, x: Tensor, alpha: Number, sigma: Number) -> Denoised:
        return Denoised(alpha * x - sigma * out, alpha * out + sigma * x)


class EDM(Prediction):
    """x0 minus the part already given by the input, at unit variance (Karras et al. 2022, eq. 7 and table 1).

    Both views use closed forms, so neither loses precision at small sigma. EDM's sigma is sigma / alpha here, and its x
    is x / alpha.
    """

    name = "edm"
    scales_input = True
    adds_noise = True

    def views(self, alpha: Number, sigma: Number) -> Views:
        total = sigma**2 + (alpha * self.sigma_data) ** 2
        root = total**0.5
        return Views(
            alpha * self.sigma_data**2 / total,
            sigma * self.sigma_data / root,
            sigma / total,
            -alpha * self.sigma_data / root,
        )

    def target(self, x0: Tensor, eps: Tensor, alpha: Number, sigma: Number) -> Tensor:
        # (x0 - c_skip x) / c_out, with x0 separated from x first: exact at both ends.
        root = (sigma**2 + (alpha * self.sigma_data) ** 2) ** 0.5
        return (sigma * x0 - alpha * self.sigma_data**2 * eps) / (self.sigma_data * root)

    def input_scale(self, alpha: Number, sigma: Number) -> Number:
        return 1.0 / (sigma**2 + (alpha * self.sigma_data) ** 2) ** 0.5

    def error_per_x0_error(self, snr: Tensor) -> Tensor:
        return snr + self.sigma_data**-2

    @property
    def guided_as(self) -> Prediction:
        return X0()


class VE(Prediction):
    """The direction of the score, -eps, for an input that is not scaled down (EDM table 1, column VE)."""

    name = "ve"
    needs_signal = True
    scales_input = True
    adds_noise = True

    def views(self, alpha: Number, sigma: Number) -> Views:
        return Views(1.0 / alpha, sigma / alpha, 0.0, -1.0)

    def target(self, x0: Tensor, eps: Tensor, alpha: Number, sigma: Number) -> Tensor:
        return -eps

    def input_scale(self, alpha: Number, sigma: Number) -> Number:
        return 1.0 / alpha

    def error_per_x0_error(self, snr: Tensor) -> Tensor:
        return snr

    @property
    def guided_as(self) -> Prediction:
        return Eps()


class Previous(Prediction):
    """The mean of x_{t-1} in a step on a table (DDPM, section 3.2)."""

    name = "prev"
    rows_only = True

    def views(self, alpha: Number, sigma: Number) -> Views:
        """Raises ValueError."""
        raise ValueError(
            "prediction=prev is the mean of a step on the table, undefined between its rows: "
            "use sampler=ancestral or sampler=ddim"
        )

    def target(self, x0: Tensor, eps: Tensor, alpha: Number, sigma: Number) -> Tensor:
        """Raises ValueError."""
        raise ValueError("prediction=prev is the mean of a step on the table: set prediction to eps, x0 or v")

    def target_on(self, process: GaussianProcess, x0: Tensor, eps: Tensor, x_t: Tensor, t: Time) -> Tensor:
        return process.q_posterior_mean_variance(x0, x_t, t)[0]

    def read_on(self, process: GaussianProcess, out: Tensor, x_t: Tensor, t: Time) -> Denoised:
        x0 = process.x0_from_prev(out, x_t, t)
        return PreviousDenoised(x0, process.eps_from_x0(x0, x_t, t), previous=out)


def prediction_of(name: str | Prediction, sigma_data: float = 0.5) -> Prediction:
    """Returns the prediction with this name, or `name` itself if it is one. Raises ValueError if it is unknown."""
    return name if isinstance(name, Prediction) else PREDICTIONS.builder(name)(sigma_data)


def linear(a: Number, x: Tensor, b: Number, out: Tensor) -> Tensor:
    """Returns a x + b out, in the precision of x."""
    # 0 x is omitted rather than added: where alpha or sigma is 0, the other factor may be infinite.
    if isinstance(a, float) and a == 0.0:
        return out if isinstance(b, float) and b == 1.0 else factor(b, out) * out
    return factor(a, x) * x + factor(b, out) * out


def factor(value: Number, x: Tensor) -> Number:
    """Prepares a coefficient, computed per sample in float64 on the CPU, for multiplication with x."""
    return value.to(x) if isinstance(value, Tensor) else value
