"""PNDM (Liu et al. 2022) and its variant in latent diffusion, PLMS: Adams-Bashforth on eps along DDIM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.levels.grid import Grid, SigmaSpacing
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ddim import FinalLevel, Stride, refuse_constant
from difflab.diffusion.samplers.levels import LevelSampler, SamplerState
from difflab.diffusion.tables import check_choice
from difflab.types import Denoised, NoiseLevel

WarmUp = Literal["improved_euler", "runge_kutta"]

# Weights of eps now, one step ago, ...; PNDM eq. 12 and, while the history is short, the lower orders.
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class PLMSSampler(LevelSampler):
    """Steps of DDIM (PNDM eq. 11) with eps extrapolated from the last four predictions, as if steps were even in time.

    warm_up:     how the history is built up. improved_euler: two calls in the first step (latent diffusion; diffusers'
                 skip_prk_steps=True). runge_kutta: four calls in each of the first three (PNDM, eq. 13).
    final_level: where the last step ends: the clean end, or training step 0 (latent diffusion, Stable Diffusion;
                 diffusers' set_alpha_to_one=False).
    stride:      `listed` goes to the next kept timestep; `constant` always goes down by T // steps, as diffusers does
                 (the two differ for spacing=linspace).

    Raises ValueError if the grid is spaced by sigma or does not end clean, and in `respace` if the process is in
    continuous time.
    """

    may_end_where_it_is = True

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        warm_up: WarmUp = "improved_euler",
        final_level: FinalLevel = "clean",
        stride: Stride = "listed",
    ) -> None:
        grid = grid or Grid(steps=50, spacing="leading")
        super().__init__(grid)
        if grid.spacing != "listed" and grid.spacing in get_args(SigmaSpacing):
            raise ValueError(f"PLMS steps in time, but spacing={grid.spacing} is by sigma: use spacing=leading")
        if grid.final != "clean":
            raise ValueError("PLMS needs final_level=first in place of a grid's final=lowest")
        check_choice("warm_up", warm_up, WarmUp)
        check_choice("final_level", final_level, FinalLevel)
        check_choice("stride", stride, Stride)
        refuse_constant(stride, listed=grid.spacing == "listed")
        self.warm_up: WarmUp = warm_up
        self.final_level: FinalLevel = final_level
        self.stride: Stride = stride

    def respace(self, process: Process) -> Process:
        """Returns the process itself."""
        if process.table is None:
            raise ValueError("PLMS steps on the timesteps of a table; in continuous time use sampler=dpm_solver_pp")
        return super().respace(process)

    def levels(self, process: Process) -> Sequence[NoiseLevel]:
        levels = super().levels(process)
        return levels if self.final_level == "clean" else [*levels[:-1], _table(process).level(0)]

    def step(self, state: SamplerState, z: Tensor, here: NoiseLevel, there: NoiseLevel) -> tuple[Tensor, Denoised]:
        denoised = state.denoise(z, here)
        x, eps = z * here.alpha, denoised.eps
        last = state.index == len(state.levels) - 2  # a warm-up would have to call the network where this step ends
        if self.warm_up == "improved_euler" and not state.past and not last:
            x = self._improved_euler(state, x, eps, here, there)
        elif self.warm_up == "runge_kutta" and len(state.past) < 3 and not last:
            x = self._runge_kutta(state, x, eps, here, there)
        else:
            x = transfer(x, self._extrapolated(state, eps), here, self._end(state, here, there))
        state.remember(here, eps, 3)
        return x / there.alpha, denoised

    def _extrapolated(self, state: SamplerState, eps: Tensor) -> Tensor:
        weights = ADAMS_BASHFORTH[len(state.past)]
        total = weights[0] * eps
        for weight, (_, before) in zip(weights[1:], reversed(state.past), strict=True):
            total = total + weight * before
        return total

    def _improved_euler(
        self, state: SamplerState, x: Tensor, eps: Tensor, here: NoiseLevel, there: NoiseLevel
    ) -> Tensor:
        second = _eps(state, transfer(x, eps, here, self._end(state, here, there)), there)
        start = here if self.stride == "listed" else _later(state, there, _stride(state))
        return transfer(x, 0.5 * (eps + second), start, there)

    def _runge_kutta(self, state: SamplerState, x: Tensor, eps: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        first, middle = self._middle(state, here, there)
        second = _eps(state, transfer(x, eps, here, first), middle)
        third = _eps(state, transfer(x, second, here, middle), middle)
        fourth = _eps(state, transfer(x, third, here, there), there)
        return transfer(x, (eps + 2.0 * second + 2.0 * third + fourth) / 6.0, here, there)

    def _middle(self, state: SamplerState, here: NoiseLevel, there: NoiseLevel) -> tuple[NoiseLevel, NoiseLevel]:
        """Returns (end of the first half step of Runge-Kutta, level of its network call), the same if stride=listed."""
        if self.stride == "listed":
            middle = _later(state, there, (_time(here) - _time(there)) // 2)
            return middle, middle
        half = _stride(state) // 2
        return _later(state, here, -half), _later(state, there, half)

    def _end(self, state: SamplerState, here: NoiseLevel, there: NoiseLevel) -> NoiseLevel:
        if self.stride == "listed":
            return there
        return _later(state, here, -_stride(state)) if _time(here) >= _stride(state) else state.levels[-1]


def transfer(x: Tensor, eps: Tensor, start: NoiseLevel, end: NoiseLevel) -> Tensor:
    """Moves x from `start` to `end` along one eps: DDIM; PNDM eq. 11."""
    return end.alpha * (x / start.alpha + (end.edm_sigma - start.edm_sigma) * eps)


def _eps(state: SamplerState, x: Tensor, level: NoiseLevel) -> Tensor:
    return state.denoise(x / level.alpha, level).eps


def _later(state: SamplerState, level: NoiseLevel, timesteps: float) -> NoiseLevel:
    assert isinstance(state.grid, Grid), "PLMS is made with one"
    return _table(state.process).level_at(_time(level) + timesteps, state.grid.interpolate)


def _stride(state: SamplerState) -> int:
    return _table(state.process).num_timesteps // (len(state.levels) - 1)


def _time(level: NoiseLevel) -> float:
    assert level.timestep is not None, "all levels of a table but the clean end have a timestep"
    return level.timestep


def _table(process: Process) -> GaussianProcess:
    assert process.table is not None, "checked by respace"
    return process.table
