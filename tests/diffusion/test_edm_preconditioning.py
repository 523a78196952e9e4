"""EDM's four preconditionings and three training losses against the official code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.levels.distributions import LogNormalDistribution, LogUniformDistribution, VPDistribution
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.losses import DiffusionLoss
from difflab.diffusion.predictions import EDM
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import cosine_betas
from difflab.diffusion.weighting import EDMWeighting
from difflab.types import NoiseLevel
from diffusion.fakes import Checked, Mixture
from golden_fixtures import load

FIXTURE = load("diffusion", "edm-precond")
SIGMAS: list[float] = FIXTURE.spec["sigmas"]
OURS: dict[str, Process] = {
    "VPPrecond": ContinuousProcess(VPDistribution(), prediction="eps", time_input="vp"),
    "VEPrecond": ContinuousProcess(LogUniformDistribution(), prediction="ve", time_input="ve"),
    "iDDPMPrecond": GaussianProcess(cosine_betas(1000), prediction="eps", variance="learned_range"),
    "EDMPrecond": ContinuousProcess(
        LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=(0.002, 80.0)
    ),
}
"""The official wrappers as processes. Their x is ours over alpha, their sigma our sigma over alpha."""
IDDPM = OURS["iDDPMPrecond"]


def inner(z: Tensor, time: float, *, zeros: bool) -> Tensor:
    """The network of the fixture, with a second half of zeros where the variance is learned."""
    out = FIXTURE.spec["inner"]["a"] * z + FIXTURE.spec["inner"]["b"] * np.sin(time)
    return torch.cat([out, torch.zeros_like(out)], dim=1) if zeros else out


def nearest_row(noise: float) -> int:
    """The row that iDDPMPrecond rounds to; its table has the clean end too, our row -1."""
    assert isinstance(IDDPM, GaussianProcess)
    sigmas = np.array([IDDPM.level(row).edm_sigma for row in range(-1, 1000)])
    return int(np.abs(sigmas - noise).argmin()) - 1


def level_of(name: str, sigma: float) -> NoiseLevel:
    """The level of a sigma; iDDPMPrecond tells its network the nearest row and scales by the sigma itself."""
    level = OURS[name].level_of_sigma(sigma)
    return replace(level, timestep=float(nearest_row(sigma))) if name == "iDDPMPrecond" else level


def c_in(name: str, sigma: float) -> float:
    """What EDM's x is multiplied with."""
    level = level_of(name, sigma)
    return level.alpha * float(OURS[name].input_at(torch.ones(1, dtype=torch.float64), level))


def denoised(name: str, x: Tensor, sigma: float) -> Tensor:
    """D(x, sigma) of [1, C, H, W] in EDM's coordinates."""
    process, level = OURS[name], level_of(name, sigma)
    seen = level.alpha * x
    out = inner(process.input_at(seen, level), process.time_at(level), zeros=process.learns_variance)
    return process.predict_at(out, seen, level).x0


# -- preconditioning --------------------------------------------------------------------------------------------------


def test_every_number_of_the_fixture() -> None:
    check, x = Checked(FIXTURE), FIXTURE.input("x").double()
    for name, process in OURS.items():
        check(f"{name}.D", torch.cat([denoised(name, x[i : i + 1], sigma) for i, sigma in enumerate(SIGMAS)]))
        check(f"{name}.c_noise", [process.time_at(level_of(name, sigma)) for sigma in SIGMAS])
        check(f"{name}.c_in", [c_in(name, sigma) for sigma in SIGMAS])
        if f"{name}.sigma_min_max" in FIXTURE.arrays:
            check(f"{name}.sigma_min_max", process.sigma_range)
    assert isinstance(IDDPM, GaussianProcess)
    check("iDDPMPrecond.u", [IDDPM.level(row).edm_sigma for row in range(999, -2, -1)])
    check("iDDPMPrecond.round_sigma", [IDDPM.level(nearest_row(sigma)).edm_sigma for sigma in SIGMAS])
    check("iDDPMPrecond.round_index", [999 - nearest_row(sigma) for sigma in SIGMAS])
    skip, out, scale, time = zip(*(coefficients(float(np.float32(sigma))) for sigma in SIGMAS), strict=True)
    check("EDM.c_skip", skip)
    check("EDM.c_out", out)
    check("EDM.c_in_f64", scale)
    check("EDM.c_noise_f64", time)
    for name in LOSSES:
        check(name, loss_per_pixel(name))
    check.assert_all()


def coefficients(sigma: float) -> tuple[float, float, float, float]:
    """EDM's c_skip, c_out, c_in and c_noise, read off the views: x is alpha times EDM's."""
    level = OURS["EDMPrecond"].level_of_sigma(sigma)
    linear = EDM().views(level.alpha, level.sigma)
    assert isinstance(linear.x0_x, float)
    assert isinstance(linear.x0_out, float)
    time = OURS["EDMPrecond"].time_at(level)
    return level.alpha * linear.x0_x, linear.x0_out, c_in("EDMPrecond", sigma), time


def test_a_cosine_table_is_edms_own_table_of_the_iddpm_row_by_row() -> None:
    """C_1 is the least alpha_t, 1 - max_beta; C_2 the cosine's s; j counts down from pure noise (EDM table 1)."""
    assert isinstance(IDDPM, GaussianProcess)
    ours = np.array([IDDPM.level(row).edm_sigma for row in range(999, -1, -1)])
    # Theirs is a recursion from the clean end in float32, and the fixture holds float32.
    np.testing.assert_allclose(ours, FIXTURE.arrays["iDDPMPrecond.u"][:-1], rtol=1e-5, atol=5e-6)


def test_snapping_to_rows_is_iddpms_rounding_down_to_the_lowest_row() -> None:
    """Below half of the lowest row the official code rounds to the clean end and tells the network -1; ours stays."""
    grid = Grid(snap="level")
    rounded = [grid.level_of_sigma(IDDPM, sigma) for sigma in SIGMAS]
    assert SIGMAS[0] < 0.5 * IDDPM.sigma_range[0]
    assert rounded[0].timestep == 0.0
    for level, row in zip(rounded[1:], FIXTURE.arrays["iDDPMPrecond.round_index"][1:], strict=True):
        assert level.timestep == 999 - row


# -- losses -----------------------------------------------------------------------------------------------------------

LOSSES = {"EDMLoss": "EDMPrecond", "VPLoss": "VPPrecond", "VELoss": "VEPrecond"}
TIMES: dict[str, Callable[[], Tensor]] = {
    # EDM draws normals, we their quantiles; VP counts t down from 1; VE draws as we do.
    "EDMLoss": lambda: torch.special.ndtr(FIXTURE.input("rnd_normal").double()),
    "VPLoss": lambda: 1.0 - torch.tensor(FIXTURE.spec["rnd_uniform"], dtype=torch.float64),
    "VELoss": lambda: torch.tensor(FIXTURE.spec["rnd_uniform"], dtype=torch.float64),
}


def official_sigma(name: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """Sigma of the fixture's draws by the formulas of the official losses, float64."""
    normal, uniform = FIXTURE.input("rnd_normal").to(dtype), torch.tensor(FIXTURE.spec["rnd_uniform"], dtype=dtype)
    if name == "EDMLoss":
        return torch.exp(-1.2 + 1.2 * normal).double()
    if name == "VELoss":
        return (0.02 * (100 / 0.02) ** uniform).double()
    t = 1.0 + uniform * (1e-5 - 1.0)
    return torch.sqrt(torch.exp(0.5 * 19.9 * t**2 + 0.1 * t) - 1.0).double()


@pytest.mark.parametrize("name", LOSSES)
def test_a_law_gives_the_sigma_that_the_loss_per_pixel_draws(name: str) -> None:
    process = OURS[LOSSES[name]]
    assert isinstance(process, ContinuousProcess)
    torch.testing.assert_close(process.sigma_distribution.sigma(TIMES[name]()), official_sigma(name), rtol=1e-5, atol=0)


def as_official(name: str) -> Tensor:
    """The times u [B] of a fixture's loss. VPLoss takes 1 from numbers near 1 in float32: its sigma as it came out."""
    law = VPDistribution()
    return (
        (law.vp.time(official_sigma(name, torch.float32)) - law.eps_t) / (1 - law.eps_t)
        if name == "VPLoss"
        else TIMES[name]()
    )


def training_terms(process: ContinuousProcess, name: str) -> tuple[Tensor, ...]:
    """(network output, x0, x_t, t, noise) where the network is the fixture's mixture denoiser."""
    t, x0, noise = as_official(name), FIXTURE.input("images").double(), FIXTURE.input("noise").double()
    x_t, mixture = process.q_sample(x0, t, noise), Mixture(FIXTURE.spec["mixture"])
    outputs = []
    for item, u in zip(x_t, t.tolist(), strict=True):
        level = process.level_at(u)
        linear: Any = process.prediction.views(level.alpha, level.sigma)
        prediction = mixture.denoise(item[None] / level.alpha, level.edm_sigma)
        outputs.append((prediction - linear.x0_x * item[None]) / linear.x0_out)
    return torch.cat(outputs), x0, x_t, t, noise


def loss_per_pixel(name: str) -> Tensor:
    """Each pixel's share of our loss [B, C, H, W]: on its own prediction, none of the three weighs anything."""
    process = OURS[LOSSES[name]]
    assert isinstance(process, ContinuousProcess)
    out, x0, x_t, t, noise = training_terms(process, name)
    return (process.target(x0, noise, x_t, t) - out) ** 2


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_an_image_is_the_mean_over_its_pixels(name: str) -> None:
    process = OURS[LOSSES[name]]
    assert isinstance(process, ContinuousProcess)
    loss = DiffusionLoss(process)(*training_terms(process, name))["loss"]
    expected = torch.as_tensor(FIXTURE.arrays[name]).double().flatten(1).mean(dim=1)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "edm", "ve"])
def test_edms_weighting_makes_its_loss_of_any_prediction(prediction: Any) -> None:
    """lambda(sigma) is on the error of x0, so the loss does not depend on what the network regresses."""
    process = ContinuousProcess(LogNormalDistribution(), prediction=prediction, sigma_range=(0.002, 80.0))
    loss = DiffusionLoss(process, weighting=EDMWeighting())(*training_terms(process, "EDMLoss"))["loss"]
    expected = torch.as_tensor(FIXTURE.arrays["EDMLoss"]).double().flatten(1).mean(dim=1)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
