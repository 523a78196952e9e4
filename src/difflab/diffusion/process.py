"""The Gaussian diffusion process: the closed forms of DDPM on a table of betas, independent of any network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from difflab.diffusion.base_process import Process, Variance
from difflab.diffusion.predictions import Prediction, PreviousDenoised, prediction_of
from difflab.diffusion.schedules import betas_of, build_betas
from difflab.diffusion.tables import BetaTables, PosteriorClip, Time, check_choice, interpolate_rows
from difflab.types import Denoised, NoiseLevel

if TYPE_CHECKING:
    from difflab.diffusion.config import DiscreteDiffusionConfig

TimeInput = Literal["index", "scaled_index", "alpha_bar", "sqrt_alpha_bar", "log_snr"]
Interpolation = Literal["log", "linear"]

_TABLES_OF = {
    "fixed_small": ("posterior_variance", "posterior_log_variance_clipped"),
    "fixed_large": ("fixed_large_variance", "fixed_large_log_variance"),
    "interpolated": ("interpolated_variance", "interpolated_log_variance"),
}

CLEAN = NoiseLevel(alpha=1.0, sigma=0.0)
PURE_NOISE = NoiseLevel(alpha=0.0, sigma=1.0)


class GaussianProcess(BetaTables, Process):
    """q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I) on T rows, and its reverse; DDPM section 2.

    Row 0 is the least noisy. Tensors are [B, ...] of any trailing shape; a float64 x is processed in float64, any other
    x in float32. Tables are float64 numpy attributes of shape [T].

    betas:           [T] in (0, 1]; 1 (zero terminal SNR) is allowed only in the last row, and only if x0 can be
                     recovered there, so not with prediction="eps".
    prediction:      what the network regresses: the noise, x_0, v = alpha eps - sigma x_0, or the mean of x_{t-1}.
    variance:        of p(x_{t-1} | x_t): the posterior's (fixed_small), beta_t (fixed_large), the network's own
                     log-variance (learned), or its mix of both bounds (learned_range; Improved DDPM eq. 15). Learned
                     variances double the output channels. interpolated: the bounds mixed by `variance_mix`.
    variance_mix:    v of variance=interpolated, fixed_small^(1-v) fixed_large^v (classifier-free guidance, eq. 4).
    posterior_clip:  the posterior variance is 0 at row 0; its log is copied from row 1 (`copy_second`: DDPM's newer
                     class, ADM) or floored at log(1e-20) (`floor`: DDPM's older class, used for LSUN and CelebA-HQ).
    time_input:      the network's time input: the training index, index * 1000 / T (`rescale_timesteps`), alpha_bar
                     (SR3's gamma), its root (Janspiry's SR3), or the log-SNR.
    sigma_data:      standard deviation of the data, for prediction=edm.
    timestep_map:    the training index of each row, fractional between two; original_steps: T of the training process.
                     Both are set by `on`.

    Raises ValueError if betas are outside (0, 1] or too small to have an effect, more than one row has no signal, an
    option is unknown, or options cannot be combined.
    """

    def __init__(
        self,
        betas: ArrayLike,
        *,
        prediction: str | Prediction = "eps",
        variance: Variance = "fixed_small",
        variance_mix: float = 0.0,
        posterior_clip: PosteriorClip = "copy_second",
        time_input: TimeInput = "index",
        timestep_map: Sequence[float] | None = None,
        original_steps: int | None = None,
        sigma_data: float = 0.5,
    ) -> None:
        check_choice("variance", variance, Variance)
        check_choice("time_input", time_input, TimeInput)
        self.prediction = prediction_of(prediction, sigma_data)
        self.sigma_data = sigma_data
        self.variance: Variance = variance
        self.time_input: TimeInput = time_input
        super().__init__(betas, posterior_clip, variance_mix)
        self.time_span = float(self.num_timesteps)
        self.timestep_map: list[float] = list(range(self.num_timesteps) if timestep_map is None else timestep_map)
        self.original_steps = self.num_timesteps if original_steps is None else original_steps
        if len(self.timestep_map) != self.num_timesteps:
            raise ValueError(f"timestep_map has {len(self.timestep_map)} entries for {self.num_timesteps} betas")
        self.base: GaussianProcess = self
        self.network_times = self._times_of_rows()
        if len(self.sigmas) < self.num_timesteps - 1:
            raise ValueError(
                f"alpha_bar is 0 from step {len(self.sigmas)} of {self.num_timesteps} on, and only the last step may "
                "be without any signal: take fewer timesteps or smaller betas"
            )
        if self.alphas_cumprod[-1] == 0.0 and self.prediction.needs_signal:
            raise ValueError(
                f"alpha_bar ends at 0, where x0 cannot be recovered from {self.prediction.name}: use prediction v or x0"
            )
        if not np.isfinite(self.network_times).all():
            raise ValueError("time_input=log_snr is infinite where alpha_bar is 0: use another time_input or schedule")

    @classmethod
    def from_config(cls, config: DiscreteDiffusionConfig) -> GaussianProcess:
        return cls(
            build_betas(config.schedule, config.timesteps),
            prediction=config.prediction,
            variance=config.variance,
            variance_mix=config.variance_mix,
            posterior_clip=config.posterior_clip,
            time_input=config.time_input,
            sigma_data=config.sigma_data,
        )

    def _times_of_rows(self) -> NDArray[Any]:
        index = np.array(self.timestep_map, dtype=np.float64)
        with np.errstate(divide="ignore"):
            log_snr = np.log(self.alphas_cumprod) - np.log(self.one_minus_alphas_cumprod)
        return {
            "index": index,
            "scaled_index": index * (1000.0 / self.original_steps),
            "alpha_bar": self.alphas_cumprod,
            "sqrt_alpha_bar": self.sqrt_alphas_cumprod,
            "log_snr": log_snr,
        }[self.time_input]

    def __len__(self) -> int:
        return self.num_timesteps

    @property
    def table(self) -> GaussianProcess:
        return self

    def has_same_time_as(self, other: Process) -> bool:
        """Whether the other process has the same table."""
        if other.table is None or len(other.table) != len(self):
            return False
        return np.allclose(self.alphas_cumprod, other.table.alphas_cumprod, rtol=1e-6, atol=0)

    def even_times(self, n: int) -> Tensor:
        """Returns n rows, int64, evenly spaced from the first to the last. Raises ValueError if n exceeds the rows."""
        rows = self.num_timesteps
        if n > rows:
            raise ValueError(f"times={n}, but the schedule has {rows}: give times={rows} or less")
        return torch.tensor([round(k * (rows - 1) / max(1, n - 1)) for k in range(n)], dtype=torch.int64, device="cpu")

    def on_levels(self, levels: Sequence[NoiseLevel]) -> GaussianProcess:
        """Returns the process on these levels; for levels that are exactly its rows, the same as `respace`."""
        rows = {self.level(row): row for row in range(len(self))}
        kept = [self.alphas_cumprod[rows[level]] if level in rows else level.alpha**2 for level in levels]
        return self.on(kept, [level.timestep for level in levels if level.timestep is not None])

    def respace(self, timesteps: Sequence[int]) -> GaussianProcess:
        """Returns the process on some of its rows (any order, no repeats), with betas from the kept alpha_bar.

        Networks still receive the training index. Raises ValueError if rows are outside 0..T-1 or repeated.
        """
        rows = sorted(int(t) for t in timesteps)
        if not rows or len(set(rows)) != len(rows) or rows[0] < 0 or rows[-1] >= self.num_timesteps:
            raise ValueError(f"respace needs distinct steps in 0..{self.num_timesteps - 1}, got {rows}")
        return self.on(self.alphas_cumprod[rows], [self.timestep_map[row] for row in rows])

    def on(self, alphas_cumprod: ArrayLike, timesteps: Sequence[float]) -> GaussianProcess:
        """Returns the process on a table of these decreasing alpha_bar [n], with the training index of each."""
        spaced = GaussianProcess(
            betas_of(np.asarray(alphas_cumprod, dtype=np.float64)),
            prediction=self.prediction,
            variance=self.variance,
            variance_mix=self.variance_mix,
            posterior_clip=self.posterior_clip,
            time_input=self.time_input,
            timestep_map=timesteps,
            original_steps=self.original_steps,
            sigma_data=self.sigma_data,
        )
        spaced.base = self.base
        return spaced

    def level(self, t: int) -> NoiseLevel:
        """Returns the noise level of row t; -1 is the clean end."""
        if t == -1:
            return CLEAN
        return NoiseLevel(
            float(self.sqrt_alphas_cumprod[t]),
            float(self.sqrt_one_minus_alphas_cumprod[t]),
            float(self.timestep_map[t]),
        )

    def network_time(self, t: Tensor) -> Tensor:
        """Returns the network's time input: t [B] -> float32 [B]."""
        if t.is_floating_point():
            return self._time_between(t).float()
        return self._cached("network_times", t.device, torch.float32)[t]

    def time_at(self, level: NoiseLevel) -> float:
        """Returns the network's time input at any level, also between two rows.

        Raises ValueError if the level has no timestep and the network receives the index.
        """
        if self.time_input == "alpha_bar":
            return level.alpha**2
        if self.time_input == "sqrt_alpha_bar":
            return level.alpha
        if self.time_input == "log_snr":
            return level.log_snr
        if level.timestep is None:
            raise ValueError(
                f"the network takes the training index as time (time_input={self.time_input}); this level has none"
            )
        return level.timestep * (1000.0 / self.original_steps) if self.time_input == "scaled_index" else level.timestep

    @property
    def sigma_range(self) -> tuple[float, float]:
        """sigma / alpha of the first row and of the last row with a signal. Raises ValueError if there is none."""
        if not len(self.sigmas):
            raise ValueError(
                "the only step of this schedule is pure noise, so there are no levels to step between: use "
                "sampler=ancestral or sampler=ddim"
            )
        return float(self.sigmas[0]), float(self.sigmas[-1])

    def starting_std(self, level: NoiseLevel) -> float:
        """Returns 1: DDPM starts from unit normals, however much signal is left."""
        return 1.0

    def level_at(self, timestep: float, interpolate: Interpolation = "log") -> NoiseLevel:
        """Returns the level of a training timestep; between rows, sigma / alpha or its logarithm is interpolated.

        log: as in k-diffusion. linear: as in diffusers. Timesteps beyond the ends are clamped.
        """
        if timestep in self.timestep_map:
            return self.level(self.timestep_map.index(timestep))
        times = self.timestep_map[: len(self.sigmas)]
        if interpolate == "log":
            return _level(float(np.exp(np.interp(timestep, times, np.log(self.sigmas)))), timestep)
        return _level(float(np.interp(timestep, times, self.sigmas)), timestep)

    def level_of_sigma(self, sigma: float) -> NoiseLevel:
        """Returns the level of this sigma / alpha; its timestep is interpolated as in k-diffusion's sigma_to_t."""
        timestep = np.interp(np.log(sigma), np.log(self.sigmas), self.timestep_map[: len(self.sigmas)])
        return _level(sigma, float(timestep))

    def snr(self, t: Tensor) -> Tensor:
        """Returns alpha_bar / (1 - alpha_bar), float64 [B]."""
        alphas_cumprod = self._alpha_bar(t)
        return alphas_cumprod / (1.0 - alphas_cumprod)

    def alpha_sigma(self, t: Time, x: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """Returns sqrt(alpha_bar) and sqrt(1 - alpha_bar), broadcastable to x [B, ...]."""
        return self._at("sqrt_alphas_cumprod", t, x), self._at("sqrt_one_minus_alphas_cumprod", t, x)

    def q_mean_variance(self, x0: Tensor, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [B, ...], variance and log-variance (both broadcastable) of q(x_t | x_0); DDPM eq. 4."""
        return (
            self._at("sqrt_alphas_cumprod", t, x0) * x0,
            _as_tensor(self._at("one_minus_alphas_cumprod", t, x0)),
            _as_tensor(self._at("log_one_minus_alphas_cumprod", t, x0)),
        )

    def q_sample(self, x0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Samples x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise; DDPM eq. 4 reparameterised."""
        alpha, sigma = self.alpha_sigma(t, x0)
        return alpha * x0 + sigma * noise

    def q_step(self, x: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Samples x_t from x_{t-1} [B, ...]: sqrt(1 - beta_t) x + sqrt(beta_t) noise; DDPM eq. 2."""
        return self._at("sqrt_alphas", t, x) * x + self._at("sqrt_betas", t, x) * noise

    def q_posterior_mean_variance(self, x0: Tensor, x_t: Tensor, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [B, ...], variance, clipped log-variance (broadcastable) of q(x_{t-1} | x_t, x_0); DDPM eq. 6, 7."""
        return (
            self._at("posterior_mean_coef1", t, x_t) * x0 + self._at("posterior_mean_coef2", t, x_t) * x_t,
            _as_tensor(self._at("posterior_variance", t, x_t)),
            _as_tensor(self._at("posterior_log_variance_clipped", t, x_t)),
        )

    def x0_from_eps(self, eps: Tensor, x_t: Tensor, t: Time) -> Tensor:
        """Returns x_0 = (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar); DDPM eq. 15."""
        alpha, sigma = self.alpha_sigma(t, x_t)
        return (x_t - sigma * eps) / alpha

    def eps_from_x0(self, x0: Tensor, x_t: Tensor, t: Time) -> Tensor:
        """Returns eps = (x_t - sqrt(alpha_bar) x_0) / sqrt(1 - alpha_bar); DDPM eq. 4 solved for the noise."""
        alpha, sigma = self.alpha_sigma(t, x_t)
        return (x_t - alpha * x0) / sigma

    def x0_from_prev(self, prev: Tensor, x_t: Tensor, t: Time) -> Tensor:
        """Returns the x_0 whose posterior mean is `prev`; DDPM eq. 7 solved for x_0."""
        coef1, coef2 = self._at("posterior_mean_coef1", t, x_t), self._at("posterior_mean_coef2", t, x_t)
        return (prev - coef2 * x_t) / coef1

    def target(self, x0: Tensor, noise: Tensor, x_t: Tensor, t: Time) -> Tensor:
        """Returns the regression target, [B, ...], for this process's prediction."""
        return self.prediction.target_on(self, x0, noise, x_t, t)

    def predict(self, model_output: Tensor, x_t: Tensor, t: Time) -> Denoised:
        """Converts a network output [B, C or 2C, ...] at row t to x_0, eps and the log-variance."""
        out, values = self.split_output(model_output, x_t)
        denoised = self.prediction.read_on(self, out, x_t, t)
        return denoised if values is None else replace(denoised, log_variance=self._log_variance_from(values, x_t, t))

    def reverse_mean_variance(self, denoised: Denoised, x_t: Tensor, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [B, ...], variance and log-variance (broadcastable) of p(x_{t-1} | x_t); DDPM section 3.2."""
        if isinstance(denoised, PreviousDenoised) and denoised.previous is not None:
            mean = denoised.previous
        else:
            mean = self.q_posterior_mean_variance(denoised.x0, x_t, t)[0]
        if self.learns_variance:
            if denoised.log_variance is None:
                raise ValueError(f"variance={self.variance} needs a prediction that carries its log_variance")
            return mean, torch.exp(denoised.log_variance), denoised.log_variance
        variance, log_variance = _TABLES_OF[self.variance]
        return mean, _as_tensor(self._at(variance, t, x_t)), _as_tensor(self._at(log_variance, t, x_t))

    def _log_variance_from(self, values: Tensor, x_t: Tensor, t: Time) -> Tensor:
        if self.variance == "learned":
            return values
        low, high = self._at("posterior_log_variance_clipped", t, x_t), self._at("log_betas", t, x_t)
        fraction = (values + 1) / 2
        return fraction * high + (1 - fraction) * low

    def _time_between(self, t: Tensor) -> Tensor:
        alpha_bar = self._alpha_bar(t)
        if self.time_input == "alpha_bar":
            return alpha_bar
        if self.time_input == "sqrt_alpha_bar":
            return alpha_bar.sqrt()
        if self.time_input == "log_snr":
            return alpha_bar.log() - (1.0 - alpha_bar).log()
        times = self._cached("network_times", t.device, torch.float64)
        return interpolate_rows(times, -1.0 if self.time_input == "index" else -1000.0 / self.original_steps, t)


def _level(sigma: float, timestep: float) -> NoiseLevel:
    alpha = 1.0 / math.sqrt(1.0 + sigma * sigma)
    return NoiseLevel(alpha, sigma * alpha, timestep)


def _as_tensor(value: float | Tensor) -> Tensor:
    # A 0-dim tensor on the CPU combines with tensors of any device and dtype, without a transfer.
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
