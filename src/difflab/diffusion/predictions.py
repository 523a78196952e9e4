"""What a network's output means at one noise level: x0 and eps as linear views of the input and the output."""

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
    """The answer of a network that predicts the mean of x_{t-1}: `previous` [B, ...] is that mean, never clipped."""

    previous: Tensor | None = None


class Views(NamedTuple):
    """x0 = x0_x x + x0_out F and eps = eps_x x + eps_out F, for an input x = alpha x0 + sigma eps and an output F."""

    x0_x: Number
    x0_out: Number
    eps_x: Number
    eps_out: Number


@dataclass(frozen=True)
class Prediction(ABC):
    """What a network regresses. alpha and sigma are floats, or tensors that broadcast over x [B, ...].

    sigma_data: the standard deviation of the data, where that plays a role.

    name:         by what it is chosen.
    rows_only:    whether it belongs to a step of a table and has no meaning between its rows.
    needs_signal: whether x0 cannot be recovered from it where alpha = 0.
    scales_input: whether the network sees x scaled.
    adds_noise:   whether x0 + sigma eps is what the network was made for (EDM), so that sampling starts from sigma eps.
    """

    name: ClassVar[str]
    rows_only: ClassVar[bool] = False
    needs_signal: ClassVar[bool] = False
    scales_input: ClassVar[bool] = False
    adds_noise: ClassVar[bool] = False

    sigma_data: float = 0.5

    @abstractmethod
    def views(self, alpha: Number, sigma: Number) -> Views:
        """How x0 and eps are read from the output."""

    @abstractmethod
    def target(self, x0: Tensor, eps: Tensor, alpha: Number, sigma: Number) -> Tensor:
        """What the network regresses, [B, ...], given x0 and eps of that shape."""

    def input_scale(self, alpha: Number, sigma: Number) -> Number:
        """What the input is multiplied with before the network sees it (c_in of EDM table 1, of x / alpha)."""
        return 1.0

    def error_per_x0_error(self, snr: Tensor) -> Tensor | float:
        """The squared error of the output where that of x0 is 1, at snr = alpha^2 / sigma^2 [B]."""
        return (1.0 / self.views((snr / (1.0 + snr)).sqrt(), (1.0 + snr).rsqrt()).x0_out) ** 2

    @property
    def guided_as(self) -> Prediction:
        """The prediction that guidance is rescaled in."""
        return self

    # -- on the rows of a table ----------------------------------------------------------------------------------------

    def target_on(self, process: GaussianProcess, x0: Tensor, eps: Tensor, x_t: Tensor, t: Time) -> Tensor:
        """What the network regresses at times t, [B, ...]."""
        return self.target(x0, eps, *process.alpha_sigma(t, x0))

    def read_on(self, process: GaussianProcess, out: Tensor, x_t: Tensor, t: Time) -> Denoised:
        """x0 and eps that an output [B, C, ...] stands for at times t."""
        return self.read(out, x_t, *process.alpha_sigma(t, x_t))

    def read(self, out: Tensor, x: Tensor, alpha: Number, sigma: Number) -> Denoised:
        """x0 and eps that an output [B, C, ...] stands for."""
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
        """DDPM eq. 15."""
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
    """x0 less the part of it that the input tells already, at unit variance (Karras et al. 2022, eq. 7 and table 1).

    Both views are made from closed forms, so neither loses digits where sigma is small. EDM's sigma is sigma / alpha
    here, and its x is x / alpha.
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
        # (x0 - c_skip x) / c_out, with x0 taken out of x first: exact at both ends.
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
    """The score's direction, -eps, of an input that is not scaled down (EDM table 1, column VE)."""

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
    """The mean of x_{t-1} (DDPM, section 3.2): of a step on a table."""

    name = "prev"
    rows_only = True

    def views(self, alpha: Number, sigma: Number) -> Views:
        """Raises ValueError."""
        raise ValueError(
            "prediction=prev is the mean of a step on the table and has no meaning between its rows: "
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
    """The prediction of a name, itself if it is one. Raises ValueError for one that there is not."""
    return name if isinstance(name, Prediction) else PREDICTIONS.builder(name)(sigma_data)


def linear(a: Number, x: Tensor, b: Number, out: Tensor) -> Tensor:
    """a x + b out, in the precision of x."""
    # 0 x is left out and not added: where alpha or sigma is 0, the other factor may be infinite.
    if isinstance(a, float) and a == 0.0:
        return out if isinstance(b, float) and b == 1.0 else factor(b, out) * out
    return factor(a, x) * x + factor(b, out) * out


def factor(value: Number, x: Tensor) -> Number:
    """A number of every sample's level, worked out in float64 on the CPU, as it is used on x."""
    return value.to(x) if isinstance(value, Tensor) else value
