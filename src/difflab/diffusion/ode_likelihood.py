"""The likelihood of given images by the probability-flow ODE; Song et al. (2021), section 4.3 and appendix D.2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.levels.grid import HIGHEST, LOWEST
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.ode import HEUN, RK4, Solution, State, dormand_prince, fixed_steps

Trace = Literal["rademacher", "gaussian", "exact"]

PIXEL_WIDTH = 2.0 / 255.0
"""Spacing of the 256 values of a pixel in [-1, 1]."""


class Solver(Protocol):
    """A solver of the ODE: `Adaptive` or `FixedSteps`."""

    def __call__(self, field: Flow, state: State, start: float, stop: float) -> Solution: ...


@dataclass(frozen=True)
class Adaptive:
    """Dormand and Prince's method of order 5(4); the error of a step is kept within atol + rtol |state|."""

    rtol: float = 1e-5
    atol: float = 1e-5

    def __call__(self, field: Flow, state: State, start: float, stop: float) -> Solution:
        return dormand_prince(field, state, start, stop, rtol=self.rtol, atol=self.atol)


@dataclass(frozen=True)
class FixedSteps:
    """Steps evenly spaced in log sigma, by Heun's method (2 calls a step) or the classical one (4)."""

    steps: int
    method: Literal["heun", "rk4"] = "rk4"

    def __call__(self, field: Flow, state: State, start: float, stop: float) -> Solution:
        return fixed_steps(field, state, start, stop, self.steps, {"heun": HEUN, "rk4": RK4}[self.method])


@dataclass(frozen=True)
class LogDensity:
    """log p(x) in nats.

    log_prob:    [B, P], one estimate for each probe.
    prior:       [B], the contribution of the log density of the noise at the end of the ODE.
    evaluations: int64 [B], network calls for each sample; every probe additionally costs a gradient.
    """

    log_prob: Tensor
    prior: Tensor
    evaluations: Tensor


@dataclass(frozen=True)
class ODEBitsPerDim:
    """Bits per dimension of 8-bit images: total [B, P] for each probe, prior [B], evaluations int64 [B]."""

    total: Tensor
    prior: Tensor
    evaluations: Tensor


def ode_bits_per_dim(
    denoiser: NetworkDenoiser,
    x0: Tensor,
    noise: SampleNoise,
    *,
    solver: Solver,
    trace: Trace = "rademacher",
    probes: int = 1,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> ODEBitsPerDim:
    """Returns an upper bound, in expectation over the dequantisation, on -log2 P(x0) / D of 8-bit images.

    P(x0) is the integral of the density p over the bin of width 2 / 255 around every pixel, and by Jensen's inequality
    log P(x0) >= E[log p(x0 + u)] + D log(2 / 255) with u uniform in the bin (Theis et al. 2016, section 3.1). One u is
    sampled from the sample's stream, then the probes.

    x0 [B, ...]: images in [-1, 1] on the grid of 8-bit pixels. See `ode_log_density` for the other arguments.
    """
    shift = (noise.rand(x0.shape[1:]).to(x0) - 0.5) * PIXEL_WIDTH
    found = ode_log_density(
        denoiser, x0 + shift, noise, solver=solver, trace=trace, probes=probes, sigma_min=sigma_min, sigma_max=sigma_max
    )
    nats_per_bit = x0[0].numel() * math.log(2.0)
    offset = -math.log2(PIXEL_WIDTH)
    return ODEBitsPerDim(offset - found.log_prob / nats_per_bit, -found.prior / nats_per_bit, found.evaluations)


@torch.no_grad()
def ode_log_density(
    denoiser: NetworkDenoiser,
    z: Tensor,
    noise: SampleNoise,
    *,
    solver: Solver,
    trace: Trace = "rademacher",
    probes: int = 1,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> LogDensity:
    """Returns log p(z) of the density that the ODE transports from pure noise to the lowest level; Song et al. eq. 39.

    In EDM's coordinates the ODE is dz / dn = (z - x0) / n, z = x / alpha, n = sigma / alpha. It is solved for x over
    s = ln n,

        dx / ds = sigma (eps - sigma x),    log p(x_low) = log p(x_high) + int div(sigma (eps - sigma x)) ds,

    where neither x nor its slope grows with the noise level, so that one tolerance suits all levels. At the highest
    level p is N(0, starting_std^2), as in sampling.

    z [B, ...]:  points at the lowest level, in the units of images.
    trace:       of the Jacobian: Hutchinson's estimate with `probes` vectors of signs (rademacher) or normals
                 (gaussian) from each sample's own stream, fixed along the path; or exact, a gradient for each of the D
                 dimensions.
    sigma_min, sigma_max: ends of sigma / alpha; None for those that samplers visit (see `sigma_ends`).

    Raises ValueError if the process has no such ODE, the ends are invalid, or the denoiser has guidance or clipping.
    """
    process = denoiser.process
    low, high = sigma_ends(process, sigma_min, sigma_max)
    lowest, highest = process.level_of_sigma(low), process.level_of_sigma(high)
    # Inference mode has no gradients, so the tensors to differentiate must be created outside it.
    with torch.inference_mode(False):
        # Probes first: a sample's stream must not depend on the solver.
        flow = Flow(denoiser, _probes(z, noise, trace, probes))
        x = z.clone() * lowest.alpha
        state = x, x.new_zeros(len(x), len(flow.probes))
        solution = solver(flow, state, math.log(low), math.log(high))
        end, divergence = solution.state
        dims = x[0].numel()
        std = process.starting_std(highest)
        squares = end.flatten(1).square().sum(dim=1)
        prior = -0.5 * squares / std**2 - dims * (math.log(std) + 0.5 * math.log(2.0 * math.pi))
        # The last term converts the density of x to that of z.
        log_prob = prior[:, None] + dims * (divergence + math.log(lowest.alpha))
    return LogDensity(log_prob, prior, solution.evaluations)


def sigma_ends(process: Process, sigma_min: float | None = None, sigma_max: float | None = None) -> tuple[float, float]:
    """Returns the lowest and highest sigma / alpha of the ODE: the given ones, else the process's, within [0.002, 80].

    Raises ValueError if the process has no such ODE between its levels, or if the ends are outside its range.
    """
    if process.prediction.rows_only:
        name = process.prediction.name
        raise ValueError(f"prediction={name} is the mean of a step and defines no ODE between steps: use method=bound")
    if process.table is not None and process.table.alphas_cumprod[-1] == 0.0:
        raise ValueError("the schedule ends in pure noise (zero terminal SNR), which no ODE reaches: use method=bound")
    lowest, highest = process.sigma_range
    low = max(lowest, LOWEST) if sigma_min is None else sigma_min
    high = min(highest, HIGHEST) if sigma_max is None else sigma_max
    slack = 1.0 + 1e-9  # allows for a sigma that was written as text and read again
    if not lowest / slack <= low < high <= highest * slack:
        raise ValueError(
            f"sigma_min={low:g} and sigma_max={high:g} must be {lowest:g} <= sigma_min < sigma_max <= {highest:g}, "
            "the levels that the network was trained on"
        )
    return low, high


class Flow:
    """The field of the ODE: for x [b, ...] and for the integral of its divergence, [b, P], divided by D.

    probes: P tensors [B, ...]; the trace is computed as the sum of v J v over their `parts`.
    """

    def __init__(self, denoiser: NetworkDenoiser, probes: list[list[Tensor]]) -> None:
        self.denoiser = denoiser
        self.probes = probes

    def __call__(self, times: np.ndarray, state: State, rows: np.ndarray) -> State:
        levels = [self.denoiser.process.level_of_sigma(math.exp(time)) for time in times]
        with torch.enable_grad():
            x = state[0].detach().requires_grad_()
            chosen = torch.from_numpy(rows).to(x.device)
            sigma = torch.tensor([level.sigma for level in levels], dtype=torch.float64).to(x)
            sigma = sigma.reshape(-1, *(1,) * (x.ndim - 1))
            eps = self.denoiser.at_levels(x, levels, chosen).eps
            slope = sigma * (eps - sigma * x)
            traces = [torch.stack([_vjv(slope, x, v[chosen]) for v in parts]).sum(dim=0) for parts in self.probes]
        return slope.detach(), torch.stack(traces, dim=1) / x[0].numel()


def _vjv(slope: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """Returns v^T (d slope / d x) v per sample, [b]."""
    (gradient,) = torch.autograd.grad(slope, x, v, retain_graph=True)
    return (gradient * v).flatten(1).sum(dim=1)


def _probes(z: Tensor, noise: SampleNoise, trace: Trace, count: int) -> list[list[Tensor]]:
    """Returns, for each estimate, the vectors v [B, ...] whose v J v are summed."""
    if trace == "exact":
        units = torch.eye(z[0].numel(), dtype=z.dtype, device=z.device)
        return [[unit.reshape(1, *z.shape[1:]).expand_as(z) for unit in units]]
    normals = [noise.randn_like(z) for _ in range(count)]
    if trace == "gaussian":
        return [[v] for v in normals]
    return [[torch.where(v < 0, -1.0, 1.0).to(z)] for v in normals]
