"""Which timestep each training sample gets, and the weight that keeps the loss unbiased."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class TimestepSampler(Protocol):
    """Draws are by inverse CDF from uniforms, so a sample's timestep depends on its own random stream only."""

    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u [B] uniform in [0, 1) -> (t [B], importance weight float32 [B]), on u's device.

        t: int64 rows of a table, or float positions in [0, 1) of a process in continuous time.
        """
        ...


class UniformPositions:
    """In continuous time: t = u, weight 1. Which noise levels these are is the law of the process."""

    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u [B] uniform in [0, 1) -> (u, ones [B])."""
        return u, torch.ones(u.shape, dtype=torch.float32, device=u.device)


class UniformTimesteps:
    """t uniform on 0..T-1, weight 1."""

    def __init__(self, num_timesteps: int) -> None:
        self.num_timesteps = num_timesteps

    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u [B] uniform in [0, 1) -> (t int64 [B], ones [B])."""
        t = (u.double() * self.num_timesteps).long().clamp(max=self.num_timesteps - 1)
        return t, torch.ones(u.shape, dtype=torch.float32, device=u.device)


class LossAwareTimesteps:
    """p(t) proportional to sqrt(E[loss_t^2]) over the last losses of each t; Improved DDPM, section 3.3.

    history_per_term: losses kept per timestep; until every timestep has as many, t is uniform.
    uniform_prob:     part of the mass that stays uniform.
    """

    def __init__(self, num_timesteps: int, history_per_term: int = 10, uniform_prob: float = 0.001) -> None:
        self.num_timesteps = num_timesteps
        self.uniform_prob = uniform_prob
        self._history = torch.zeros(num_timesteps, history_per_term, dtype=torch.float64)
        self._counts = torch.zeros(num_timesteps, dtype=torch.int64)

    @property
    def counts(self) -> Tensor:
        """Losses kept for each timestep, int64 [T] on the CPU."""
        return self._counts.clamp(max=self._history.shape[1])

    @property
    def warmed_up(self) -> bool:
        """Whether every timestep has its full history."""
        return bool((self._counts >= self._history.shape[1]).all())

    def weights(self) -> Tensor:
        """Relative weights of the timesteps, float64 [T] on the CPU; all 1 before the warm-up ends and where every loss
        is 0.
        """
        if not self.warmed_up:
            return torch.ones(self.num_timesteps, dtype=torch.float64)
        weights = self._history.square().mean(dim=1).sqrt()
        if weights.sum() == 0.0:  # nothing left to learn anywhere: no timestep before another
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
        """Remember the losses [N] of timesteps [N], in this order.

        Under several ranks the caller gathers both over all ranks first, so that every rank keeps the same history.
        """
        size = self._history.shape[1]
        for index, value in zip(t.tolist(), loss.detach().double().tolist(), strict=True):
            # Only the set of the last `size` losses matters: the oldest is overwritten in place.
            self._history[index, int(self._counts[index]) % size] = value
            self._counts[index] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Plain tensors for the checkpoint: history float64 [T, H] and counts int64 [T]."""
        return {"history": self._history.clone(), "counts": self._counts.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict`. Raises ValueError for the state of another number of timesteps or history."""
        if state["history"].shape != self._history.shape:
            raise ValueError(
                f"the stored loss history is {tuple(state['history'].shape)}, not {tuple(self._history.shape)}: "
                "keep timesteps and history_per_term as they were"
            )
        self._history = state["history"].to(device="cpu", dtype=torch.float64).clone()
        self._counts = state["counts"].to(device="cpu", dtype=torch.int64).clone()
