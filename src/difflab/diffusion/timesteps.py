"""Samplers of training timesteps, with the importance weights that keep the loss unbiased."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from difflab.config.axes import TIMESTEP_SAMPLINGS
from difflab.diffusion.levels.distributions import EDGE

if TYPE_CHECKING:
    from difflab.config.diffusion import DiffusionBase, TimestepSamplingBase
    from difflab.diffusion.base_process import Process
    from difflab.diffusion.config import DiscreteDiffusionConfig, LossAwareSampling, PiecewiseUniformSampling
    from difflab.diffusion.process import GaussianProcess


class TimestepSampler(ABC):
    """Samples by inverse CDF from uniforms, so a sample's timestep depends only on its own random stream.

    learns: whether `update` must be called with the losses of the sampled timesteps.
    """

    learns: ClassVar[bool] = False

    @abstractmethod
    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u [B] uniform in [0, 1) -> (t [B], importance weight float32 [B]), on u's device.

        t: int64 rows of a table, float64 points between them (-1 is the clean end), or float positions in [0, 1) of a
        process in continuous time.
        """

    def update(self, t: Tensor, loss: Tensor) -> None:
        """Records the losses [N] of timesteps [N], in this order.

        With several ranks the caller first gathers both over all ranks, so that every rank keeps the same history.
        """
        raise NotImplementedError(f"{type(self).__name__} does not learn")

    def state_dict(self) -> dict[str, Tensor]:
        """Returns its learned state as plain tensors for the checkpoint."""
        raise NotImplementedError(f"{type(self).__name__} does not learn")

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores the result of `state_dict`."""
        raise NotImplementedError(f"{type(self).__name__} does not learn")


class UniformPositions(TimestepSampler):
    """Uniform positions in continuous time: t = u, weight 1. The process maps them to noise levels."""

    @classmethod
    def from_config(cls, config: DiffusionBase, process: Process) -> UniformPositions:
        return cls()

    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u [B] uniform in [0, 1) -> (u, ones [B])."""
        return u, torch.ones(u.shape, dtype=torch.float32, device=u.device)


class UniformTimesteps(TimestepSampler):
    """t uniform on 0..T-1, weight 1."""

    def __init__(self, num_timesteps: int) -> None:
        self.num_timesteps = num_timesteps

    @classmethod
    def from_config(cls, config: TimestepSamplingBase, process: GaussianProcess) -> UniformTimesteps:
        return cls(process.num_timesteps)

    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u [B] uniform in [0, 1) -> (t int64 [B], ones [B])."""
        t = (u.double() * self.num_timesteps).long().clamp(max=self.num_timesteps - 1)
        return t, torch.ones(u.shape, dtype=torch.float32, device=u.device)


class PiecewiseUniformTimesteps(TimestepSampler):
    """A step s uniform on 1..T, then a noise level uniform between those of s - 1 and s, weight 1; SR3, section 2.4
    (as in WaveGrad), where level 0 is the clean image.

    alphas_cumprod: alpha_bar of the table [T].
    of:             which quantity is uniform: alpha_bar (the paper's gamma), or sqrt_alpha_bar (Janspiry's code, which
                    samples one step for the whole batch; here each sample has its own).
    """

    def __init__(self, alphas_cumprod: ArrayLike, of: Literal["alpha_bar", "sqrt_alpha_bar"] = "alpha_bar") -> None:
        after = torch.as_tensor(alphas_cumprod, dtype=torch.float64, device="cpu")
        self.num_timesteps = len(after)
        self.of = of
        self._roots = torch.cat([torch.ones(1, dtype=torch.float64, device="cpu"), after]).sqrt()

    @classmethod
    def from_config(cls, config: PiecewiseUniformSampling, process: GaussianProcess) -> PiecewiseUniformTimesteps:
        return cls(process.alphas_cumprod, config.of)

    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u [B] uniform in [0, 1) -> (t float64 [B] in (-1, T - 1), ones [B]).

        t is the point between two rows, where alpha_bar is interpolated linearly, that has the sampled level.
        """
        # The clean image itself has no noise level to condition on.
        place = u.double().clamp(min=EDGE) * self.num_timesteps
        step = place.long().clamp(max=self.num_timesteps - 1)
        fraction = place - step
        if self.of == "sqrt_alpha_bar":
            self._roots = self._roots.to(u.device)
            less, more = self._roots[step], self._roots[step + 1]
            # (r^2 - less^2) / (more^2 - less^2) for r between the two, without subtracting two squares.
            fraction = fraction * (2.0 * less + (more - less) * fraction) / (less + more)
        return step + fraction - 1.0, torch.ones(u.shape, dtype=torch.float32, device=u.device)


class LossAwareTimesteps(TimestepSampler):
    """p(t) proportional to sqrt(E[loss_t^2]) over the most recent losses of each t; Improved DDPM, section 3.3.

    history_per_term: losses kept per timestep; until every timestep has that many, t is uniform.
    uniform_prob:     fraction of the probability mass that stays uniform.
    """

    learns = True

    def __init__(self, num_timesteps: int, history_per_term: int = 10, uniform_prob: float = 0.001) -> None:
        self.num_timesteps = num_timesteps
        self.uniform_prob = uniform_prob
        self._history = torch.zeros(num_timesteps, history_per_term, dtype=torch.float64)
        self._counts = torch.zeros(num_timesteps, dtype=torch.int64)

    @classmethod
    def from_config(cls, config: LossAwareSampling, process: GaussianProcess) -> LossAwareTimesteps:
        return cls(process.num_timesteps, config.history_per_term, config.uniform_prob)

    @property
    def counts(self) -> Tensor:
        """Number of losses kept for each timestep, int64 [T] on the CPU."""
        return self._counts.clamp(max=self._history.shape[1])

    @property
    def warmed_up(self) -> bool:
        """Whether every timestep has its full history."""
        return bool((self._counts >= self._history.shape[1]).all())

    def weights(self) -> Tensor:
        """Returns relative weights of timesteps, float64 [T] on the CPU; all 1 during warm-up or if every loss is 0."""
        if not self.warmed_up:
            return torch.ones(self.num_timesteps, dtype=torch.float64)
        weights = self._history.square().mean(dim=1).sqrt()
        if weights.sum() == 0.0:  # nothing left to learn anywhere: no timestep is preferred
            return torch.ones(self.num_timesteps, dtype=torch.float64)
        weights = weights / weights.sum()
        return weights * (1.0 - self.uniform_prob) + self.uniform_prob / self.num_timesteps

    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u [B] uniform in [0, 1) -> (t int64 [B], 1 / (T p_t) float32 [B])."""
        weights = self.weights()
        p = (weights / weights.sum()).to(u.device)
        cdf = p.cumsum(0)
        t = torch.searchsorted(cdf / cdf[-1], u.double(), right=True).clamp(max=self.num_timesteps - 1)
        return t, (1.0 / (self.num_timesteps * p[t])).float()

    def update(self, t: Tensor, loss: Tensor) -> None:
        size = self._history.shape[1]
        for index, value in zip(t.tolist(), loss.detach().double().tolist(), strict=True):
            # Only the set of the last `size` losses matters: the oldest is overwritten in place.
            self._history[index, int(self._counts[index]) % size] = value
            self._counts[index] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Returns plain tensors for the checkpoint: history float64 [T, H] and counts int64 [T]."""
        return {"history": self._history.clone(), "counts": self._counts.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores the result of `state_dict`. Raises ValueError if timesteps or history_per_term differ."""
        if state["history"].shape != self._history.shape:
            raise ValueError(
                f"the stored loss history is {tuple(state['history'].shape)}, not {tuple(self._history.shape)}: "
                "keep timesteps and history_per_term as they were"
            )
        self._history = state["history"].to(device="cpu", dtype=torch.float64).clone()
        self._counts = state["counts"].to(device="cpu", dtype=torch.int64).clone()


def on_rows(config: DiscreteDiffusionConfig, process: Process) -> TimestepSampler:
    """Builds the configured sampler of rows of a process's table, or of points between them."""
    sampling = config.timestep_sampling
    return TIMESTEP_SAMPLINGS.builder(sampling)(sampling, process.table)
