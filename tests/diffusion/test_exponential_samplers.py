"""DPM-Solver++ and UniPC: k-diffusion's runs, orders of convergence, the clean end, restarts and mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.dpm_solver_pp import DPMSolverPPSampler
from difflab.diffusion.samplers.exponential import phis
from difflab.diffusion.samplers.levels import LevelSampler, SamplerState
from difflab.diffusion.samplers.unipc import UniPCSampler
from difflab.diffusion.schedules import linear_betas
from difflab.types import Denoised, StepContext
from diffusion.gaussian import EDM, error, exact
from diffusion.mixtures import Still

Make = Callable[[Grid], LevelSampler]
SOLVER: Any = partial(DPMSolverPPSampler, lower_order_final=False)
UNIPC: Any = partial(UniPCSampler, lower_order_final=False)


def unip(grid: Grid, **options: Any) -> UniPCSampler:
    """The predictor alone."""
    assert isinstance(grid.steps, int)
    return UNIPC(grid, disable_corrector=range(grid.steps - 1), **options)


@pytest.mark.parametrize("prediction", ["x0", "eps"])
@pytest.mark.parametrize(
    ("make", "order"),
    [
        (partial(SOLVER, order=1), 1),
        (partial(SOLVER, order=2), 2),
        (partial(SOLVER, order=2, variant="heun"), 2),
        (partial(SOLVER, order=3), 2),  # as the authors' code has it
        (partial(SOLVER, order=3, second_derivative="full"), 3),
        (partial(UNIPC, order=1), 2),
        (partial(UNIPC, order=1, variant="bh1"), 2),
        (partial(UNIPC, order=2), 3),
        (partial(UNIPC, order=2, variant="bh1"), 3),
        (partial(UNIPC, order=3), 4),
        (partial(unip, order=2), 2),
        (partial(unip, order=3), 3),
    ],
)
def test_orders_of_convergence(make: Any, order: int, prediction: str) -> None:
    def at(steps: int) -> float:
        grid = Grid(steps + 1, "exponential", sigma_min=0.05, sigma_max=80.0, final="lowest")
        return error(make(grid, prediction=prediction))

    slope = math.log2(at(80) / at(160))
    # The first steps of a high order are of a lower one, which shows or cancels before the limit is reached.
    assert order - 0.25 < slope < order + (0.3 if order < 3 else 1.7)


def test_unip_of_order_3_is_the_full_third_order() -> None:
    grid = Grid(30, "exponential", sigma_min=0.05, sigma_max=10.0, final="lowest")
    assert error(unip(grid, order=3)) == pytest.approx(error(SOLVER(grid, order=3, second_derivative="full")), rel=1e-6)


ENDS_CLEAN: list[Make] = [
    partial(DPMSolverPPSampler, order=3),
    partial(DPMSolverPPSampler, order=2, variant="heun", lower_order_final=False),
    partial(UniPCSampler, order=3),
    partial(UniPCSampler, order=2, variant="bh1", lower_order_final=False),
]


@pytest.mark.parametrize("make", ENDS_CLEAN)
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_the_last_step_lands_on_x0(make: Make, steps: int) -> None:
    x0s: list[Tensor] = []

    def keep(step: StepContext, x: Tensor, denoised: Denoised) -> None:
        x0s.append(denoised.x0)

    sampler = make(Grid(steps))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    last = sampler(exact, sampler.respace(EDM), x, Still(), keep)
    assert len(x0s) == steps
    assert torch.equal(last, x0s[-1])


@pytest.mark.parametrize("make", ENDS_CLEAN)
def test_every_call_starts_anew(make: Make) -> None:
    sampler, x = make(Grid(8)), torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)[:, None]
    alone = sampler(exact, EDM, x, Still())
    inside: list[Tensor] = []

    def again(step: StepContext, x_t: Tensor, denoised: Denoised) -> None:
        if step.index == 4:
            inside.append(sampler(exact, EDM, x, Still()))

    assert torch.equal(sampler(exact, EDM, x, Still(), again), alone)
    assert torch.equal(inside[0], alone)


def test_the_corrector_asks_nothing_and_keeps_what_a_hook_changed() -> None:
    asked: list[float] = []

    def counted(x: Tensor, step: StepContext) -> Denoised:
        asked.append(step.level.edm_sigma)
        return Denoised(torch.full_like(x, 0.25), (x - 0.25 * step.level.alpha) / step.level.sigma)

    def hook(step: StepContext, x: Tensor, denoised: Denoised) -> Tensor | None:
        return x + 0.5 * step.next_level.alpha if step.index == 5 else None

    sampler = UniPCSampler(Grid(8, final="lowest"), order=3)
    levels = sampler.levels(EDM)
    end = sampler(counted, EDM, torch.zeros(1, 1, dtype=torch.float64), Still(), hook)
    assert asked == [level.edm_sigma for level in levels[:-1]]
    # With a constant x0 there is nothing to correct: z - x0 scales with the noise, from the start and from the hook.
    left = levels[-1].edm_sigma
    expected = 0.25 - 0.25 * left / levels[0].edm_sigma + 0.5 * left / levels[6].edm_sigma
    assert float(end) / levels[-1].alpha == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (DPMSolverPPSampler, {"order": 4}, "order=4 must be 1, 2 or 3"),
        (UniPCSampler, {"order": 0}, "order=0 must be 1, 2 or 3"),
        (DPMSolverPPSampler, {"prediction": "eps"}, "set final=lowest, or prediction=x0"),
        (UniPCSampler, {"prediction": "eps"}, "set final=lowest, or prediction=x0"),
        (DPMSolverPPSampler, {"prediction": "v"}, "prediction='v' is not one of x0, eps"),
        (DPMSolverPPSampler, {"variant": "bh2"}, "variant='bh2' is not one of midpoint, heun"),
        (DPMSolverPPSampler, {"second_derivative": "none"}, "is not one of half, full"),
        (UniPCSampler, {"variant": "heun"}, "variant='heun' is not one of bh1, bh2"),
    ],
)
def test_mistakes_at_construction(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (UniPCSampler(Grid(10), disable_corrector=[3, 10]), r"disable_corrector=\[10\] names steps .* 0\.\.9"),
        (DPMSolverPPSampler(Grid(1000, "linspace_inner")), r"cannot take 1000 steps .* ask for 1\.\.999"),
        (DPMSolverPPSampler(Grid(1001, "trailing")), r"cannot take 1001 steps .* ask for 1\.\.1000"),
        (
            UniPCSampler(Grid(400, "karras", snap="level")),
            "or go up from it: take fewer steps, or snap=none",
        ),
    ],
)
def test_mistakes_that_the_process_shows(sampler: LevelSampler, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler.respace(GaussianProcess(linear_betas(1000)))


def test_phi_functions_keep_their_digits_down_to_no_step_at_all() -> None:
    """h phi_k(h) = sum of h^j / (j + k - 1)!, of which three terms are enough at 1e-3 and below."""
    for h in (0.0, 1e-12, -1e-12, 1e-6, -1e-6, 9.9e-4, -9.9e-4, 1.1e-3, -1.1e-3):
        for k, value in enumerate(phis(h, 3), start=1):
            series = sum(h**j / math.factorial(j + k - 1) for j in range(1, 6))
            assert value == pytest.approx(series, rel=2e-6, abs=0)


@pytest.mark.parametrize(("steps", "orders"), [(14, [1, 2, 3, 3, 2, 1]), (15, [1, 2, 3, 3, 3, 3])])
def test_fewer_than_fifteen_steps_go_down_in_order_at_the_end(steps: int, orders: list[int]) -> None:
    """`lower_order_final` of the authors' code and diffusers: len(timesteps) < 15."""
    sampler = DPMSolverPPSampler(Grid(steps + 1, final="lowest"), order=3)
    state = SamplerState(exact, EDM, sampler.grid, sampler.levels(EDM), Still())
    found = []
    for index, (here, there) in enumerate(pairwise(sampler.levels(EDM))):
        state.index = index
        found.append(sampler._order(state, there))
        state.remember(here, torch.zeros(1), 2)
    assert found[:3] + found[-3:] == orders


@pytest.mark.parametrize(("lower", "orders"), [(True, [1, 2, 3, 3, 2, 1]), (False, [1, 2, 3, 3, 3, 3])])
def test_unipc_goes_down_in_order_at_any_number_of_steps(lower: bool, orders: list[int]) -> None:
    sampler = UniPCSampler(Grid(31, final="lowest"), order=3, lower_order_final=lower)
    state = SamplerState(exact, EDM, sampler.grid, sampler.levels(EDM), Still())
    found = [sampler._order(state, step, min(step + 1, 3)) for step in range(30)]
    assert found[:3] + found[-3:] == orders
