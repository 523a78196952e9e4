"""Every sampler on a mixture whose field is known: orders of convergence, marginals of the noisy ones, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from difflab.diffusion.grid import Grid
from difflab.diffusion.samplers import EulerSampler, HeunSampler, LevelSampler
from diffusion.exact_field import order, solution, start
from diffusion.mixtures import Still

ORDERS: dict[str, tuple[Callable[[Grid], LevelSampler], float]] = {
    "euler": (EulerSampler, 1),
    "heun": (HeunSampler, 2),
}
"""Sampler and the order that its error falls with."""


@pytest.fixture(scope="module")
def exact() -> tuple[torch.Tensor, torch.Tensor]:
    z = start(64)
    return z, solution(z)


@pytest.mark.parametrize("name", ORDERS)
def test_the_error_falls_at_the_stated_order(name: str, exact: tuple[torch.Tensor, torch.Tensor]) -> None:
    make, stated = ORDERS[name]
    z, end = exact
    assert order(make, 80, z, end, Still()) == pytest.approx(stated, abs=0.25)
