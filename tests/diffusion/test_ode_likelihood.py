"""The probability-flow ODE against exact log densities, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difflab.diffusion.base_process import Process
from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.guidance.classifier_free import ClassifierFree
from difflab.diffusion.levels.distributions import CosineDistribution, LogNormalDistribution
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.ode_likelihood import (
    Adaptive,
    FixedSteps,
    LogDensity,
    ode_bits_per_dim,
    ode_log_density,
    sigma_ends,
)
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import linear_betas, zero_terminal_snr
from difflab.diffusion.thresholding import StaticThreshold
from difflab.types import Conditioning, Denoised, NoiseLevel

WIDE = ContinuousProcess(LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=(0.01, 1e6))
"""So wide that nothing of the data is left at its end: the density of the ODE is that of the data plus noise."""
LOW = 0.01


class Mixture:
    """Three Gaussians in `dims` dimensions as a denoiser without any network, at the levels it is asked about."""

    def __init__(self, dims: int, process: Process = WIDE) -> None:
        generator = torch.Generator().manual_seed(1)
        self.process = process
        self.shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
        self.means = 0.5 * torch.randn(3, dims, generator=generator, dtype=torch.float64)
        self.stds = torch.tensor([0.05, 0.1, 0.3], dtype=torch.float64)
        self.calls = 0

    def drawn(self, n: int) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        parts = torch.multinomial(self.shares, n, replacement=True, generator=generator)
        normals = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        return self.means[parts] + self.stds[parts, None] * normals

    def log_parts(self, z: Tensor, noise: Tensor) -> Tensor:
        """log of share and density of each part at a noise [B], [B, 3]."""
        variances = self.stds**2 + noise[:, None] ** 2
        squares = (z[:, None] - self.means).square().sum(dim=2)
        return self.shares.log() - squares / (2 * variances) - z.shape[1] / 2 * torch.log(2 * math.pi * variances)

    def log_density(self, z: Tensor) -> Tensor:
        return self.log_parts(z, torch.full((len(z),), LOW, dtype=torch.float64)).logsumexp(dim=1)

    def at_levels(self, x: Tensor, levels: Sequence[NoiseLevel], rows: Tensor | None = None) -> Denoised:
        self.calls += len(x)
        alpha = torch.tensor([level.alpha for level in levels], dtype=torch.float64)[:, None]
        noise = torch.tensor([level.edm_sigma for level in levels], dtype=torch.float64)
        z = x / alpha
        shares = torch.softmax(self.log_parts(z, noise), dim=1)
        kept = self.stds**2 / (self.stds**2 + noise[:, None] ** 2)
        means = self.means + kept[:, :, None] * (z[:, None] - self.means)
        x0 = (shares[:, :, None] * means).sum(dim=1)
        return Denoised(x0, (z - x0) / noise[:, None])


def log_density(denoiser: Any, z: Tensor, **options: Any) -> LogDensity:
    options = {"solver": Adaptive(1e-7, 1e-7), **options}
    return ode_log_density(denoiser, z, SampleNoise(range(len(z))), **options)


# -- the density --------------------------------------------------------------------------------------------------


def test_the_exact_trace_gives_the_exact_density_and_the_error_falls_with_the_tolerance() -> None:
    mixture = Mixture(3)
    z = mixture.drawn(8)
    errors, evaluations = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = log_density(mixture, z, solver=Adaptive(tolerance, tolerance), trace="exact", sigma_max=1e6)
        errors.append(float((found.log_prob[:, 0] - mixture.log_density(z)).abs().max()))
        evaluations.append(float(found.evaluations.double().mean()))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-4
    assert evaluations == sorted(evaluations)


@pytest.mark.parametrize(("method", "order"), [("heun", 2), ("rk4", 4)])
def test_fixed_steps_converge_at_their_order(method: Any, order: int) -> None:
    mixture = Mixture(2)
    z = mixture.drawn(4)
    wanted = log_density(mixture, z, solver=Adaptive(1e-9, 1e-9), trace="exact")
    errors = []
    for steps in (80, 160):
        found = log_density(mixture, z, solver=FixedSteps(steps, method), trace="exact")
        errors.append(float((found.log_prob - wanted.log_prob).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.6)


@pytest.mark.parametrize("trace", ["rademacher", "gaussian"])
def test_hutchinson_s_estimate_lies_within_its_standard_error(trace: Any) -> None:
    mixture = Mixture(4)
    z = mixture.drawn(4)
    found = log_density(mixture, z, solver=Adaptive(1e-5, 1e-5), trace=trace, probes=40, sigma_max=1e4)
    assert found.log_prob.shape == (4, 40)
    error = found.log_prob.mean(dim=1) - mixture.log_density(z)
    standard = found.log_prob.std(dim=1) / math.sqrt(40)
    assert (standard > 1e-3).all()
    assert (error.abs() < 3.5 * standard).all()


def test_signs_are_exact_where_the_jacobian_is_diagonal() -> None:
    gaussian = Mixture(5)
    gaussian.shares = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    z = gaussian.drawn(3)
    signs, exact = (log_density(gaussian, z, trace=trace).log_prob for trace in ("rademacher", "exact"))
    assert torch.allclose(signs, exact, rtol=0, atol=1e-9)
    assert not torch.allclose(log_density(gaussian, z, trace="gaussian").log_prob, exact, rtol=0, atol=1e-2)


def test_a_sample_knows_nothing_of_its_batch_and_its_evaluations_are_counted() -> None:
    mixture = Mixture(3)
    z = mixture.drawn(6)
    together = log_density(mixture, z, probes=2)
    assert mixture.calls == int(together.evaluations.sum())
    assert len(set(together.evaluations.tolist())) > 1
    for begin in (0, 2, 4):
        part = ode_log_density(
            mixture, z[begin : begin + 2], SampleNoise([begin, begin + 1]), solver=Adaptive(1e-7, 1e-7), probes=2
        )
        assert torch.allclose(part.log_prob, together.log_prob[begin : begin + 2], rtol=0, atol=1e-9)
        assert torch.equal(part.evaluations, together.evaluations[begin : begin + 2])
    fixed = log_density(mixture, z, solver=FixedSteps(7, "heun"))
    assert fixed.evaluations.tolist() == [14] * 6


# -- through a network --------------------------------------------------------------------------------------------


class GaussianNetwork:
    """Exact for data N(0.3, 0.2^2), in whatever a process wants its network to say."""

    mean, std = 0.3, 0.2

    def __init__(self, process: Process) -> None:
        self.process = process
        self.batches: list[int] = []

    def __call__(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        self.batches.append(len(x))
        levels = [self._level(float(t)) for t in time]
        alpha, sigma = (
            torch.tensor([getattr(level, name) for level in levels], dtype=torch.float64)[:, None, None]
            for name in ("alpha", "sigma")
        )
        kind = self.process.prediction.name
        x = x * alpha * ((sigma / alpha) ** 2 + 0.25).sqrt() if kind == "edm" else x * alpha if kind == "ve" else x
        kept = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        x0 = self.mean + kept * (x - alpha * self.mean)
        eps = (x - alpha * x0) / sigma
        if kind == "edm":
            return (sigma * x0 - alpha * 0.25 * eps) / (0.5 * (sigma**2 + alpha**2 * 0.25).sqrt())
        return {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "ve": -eps}[kind]

    def _level(self, time: float) -> NoiseLevel:
        if isinstance(self.process, GaussianProcess):
            return self.process.level_at(time)
        return self.process.level_of_sigma(math.exp(-0.5 * time))

    def log_density(self, z: Tensor) -> Tensor:
        """Of the density that the flow carries here from the normals at the highest level: the flow is affine."""
        low, high = sigma_ends(self.process)
        stretch = math.sqrt((self.std**2 + high**2) / (self.std**2 + low**2))
        level = self.process.level_of_sigma(high)
        end = level.alpha * (self.mean + (z - self.mean) * stretch)
        normal = torch.distributions.Normal(0.0, self.process.starting_std(level))
        return (normal.log_prob(end) + math.log(level.alpha * stretch)).flatten(1).sum(dim=1)


def continuous(prediction: str) -> ContinuousProcess:
    return ContinuousProcess(CosineDistribution(-8.0, 9.0), prediction=prediction, time_input="log_snr")


def table(prediction: Any, **options: Any) -> GaussianProcess:
    return GaussianProcess(linear_betas(100, scale_with_steps=True), prediction=prediction, **options)


PROCESSES = {
    **{f"continuous-{kind}": continuous(kind) for kind in ("eps", "x0", "v", "edm", "ve")},
    **{f"table-{kind}": table(kind) for kind in ("eps", "x0", "v")},
}


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_and_prediction_gives_the_density_of_its_flow(name: str) -> None:
    network = GaussianNetwork(PROCESSES[name])
    z = 0.3 + 0.2 * torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = log_density(NetworkDenoiser(network, network.process), z, solver=Adaptive(1e-6, 1e-6))
    assert sum(network.batches) == int(found.evaluations.sum())
    # The network is told the time in float32.
    assert torch.allclose(found.log_prob[:, 0], network.log_density(z), rtol=0, atol=2e-3)
    low, high = sigma_ends(network.process)
    end = network.process.level_of_sigma(high)
    normal = torch.distributions.Normal(0.0, network.process.starting_std(end))
    flowed = end.alpha * (0.3 + (z - 0.3) * math.sqrt((0.04 + high**2) / (0.04 + low**2)))
    assert torch.allclose(found.prior, normal.log_prob(flowed).flatten(1).sum(dim=1), rtol=0, atol=2e-3)


class Small(nn.Module):
    """A network with weights, a learned variance and a condition."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.requires_grad_(False)

    def forward(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        assert conditioning is not None
        assert conditioning.vector is not None
        return torch.tanh(self.conv(x)) + 0.1 * conditioning.vector[:, :, None, None]


def test_within_inference_mode_the_answer_is_the_same_and_conditions_follow_their_samples() -> None:
    process = table("eps", variance="learned_range")
    network = Small()
    x0 = torch.randint(0, 256, (3, 1, 4, 4), generator=torch.Generator().manual_seed(0)) / 127.5 - 1

    def bits(rows: list[int]) -> Tensor:
        told = Conditioning(vector=torch.tensor([[float(row), 0.0] for row in rows]))
        denoiser = NetworkDenoiser(network, process, told)
        return ode_bits_per_dim(denoiser, x0[rows] * 1.0, SampleNoise(rows), solver=Adaptive(1e-4, 1e-4)).total

    outside = bits([0, 1, 2])
    with torch.inference_mode():
        inside = bits([0, 1, 2])
        alone = torch.cat([bits([row]) for row in range(3)])
    assert torch.equal(inside, outside)
    assert torch.allclose(alone, outside, rtol=0, atol=1e-4)
    assert not inside.requires_grad


# -- bits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [0.2, 0.004])
def test_the_bits_of_pixels_bound_their_probability_from_above(std: float) -> None:
    """A Gaussian over pixels: P(pixel) is a difference of the CDF, which narrow ones are far from constant over."""
    gaussian = Mixture(1)
    gaussian.shares = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    gaussian.means, gaussian.stds = torch.zeros(3, 1, dtype=torch.float64), torch.full((3,), std, dtype=torch.float64)
    gaussian.process = ContinuousProcess(
        LogNormalDistribution(), prediction="edm", time_input="edm", sigma_range=(1e-3, 1e6)
    )
    pixel = torch.full((400, 1), 127 / 127.5 - 1, dtype=torch.float64)
    found = ode_bits_per_dim(gaussian, pixel, SampleNoise(range(400)), solver=Adaptive(1e-4, 1e-4))  # pyrefly: ignore
    total = math.sqrt(std**2 + 1e-6)
    normal = torch.distributions.Normal(0.0, total)
    centre = pixel[0, 0]
    exact = -float(torch.log2(normal.cdf(centre + 1 / 255) - normal.cdf(centre - 1 / 255)))
    # E[-log2 p(x + u)] of a Gaussian, u uniform with variance (2 / 255)^2 / 12.
    expected = math.log2(127.5) + math.log2(total * math.sqrt(2 * math.pi))
    expected += (float(centre) ** 2 + (2 / 255) ** 2 / 12) / (2 * total**2 * math.log(2))
    standard = float(found.total.std()) / 20
    assert float(found.total.mean()) == pytest.approx(expected, abs=4 * standard + 1e-3)
    assert expected > exact
    if std == 0.2:
        assert expected == pytest.approx(exact, abs=1e-3)
    else:
        assert expected > exact + 0.05


# -- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"threshold": StaticThreshold()}, {"guidance": (ClassifierFree(2.0, null=Conditioning()),)}]
)
def test_guidance_and_clipping_are_refused(options: dict[str, Any]) -> None:
    network = GaussianNetwork(PROCESSES["table-eps"])
    denoiser = NetworkDenoiser(network, network.process, **options)
    with pytest.raises(ValueError, match="guidance and thresholds are not supported"):
        log_density(denoiser, torch.zeros(1, 2, 3))


@pytest.mark.parametrize(
    ("process", "ends", "message"),
    [
        (table("prev"), {}, "prediction=prev"),
        (GaussianProcess(zero_terminal_snr(linear_betas(100)), prediction="v"), {}, "zero terminal SNR"),
        (table("eps"), {"sigma_max": 500.0}, "sigma_min=0.0316386 and sigma_max=500 must be 0.0316386 <= sigma_min <"),
        (table("eps"), {"sigma_min": 0.001}, "sigma_min=0.001"),
        (table("eps"), {"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min=2 and sigma_max=1"),
    ],
)
def test_what_has_no_such_ode_is_refused(process: Process, ends: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sigma_ends(process, **ends)


def test_the_ends_are_those_that_samplers_visit() -> None:
    assert sigma_ends(continuous("v")) == pytest.approx((math.exp(-4.5), math.exp(4.0)))
    assert sigma_ends(ContinuousProcess(CosineDistribution(), prediction="v")) == (0.002, 80.0)
    assert sigma_ends(table("eps")) == (table("eps").sigma_range[0], 80.0)
    assert sigma_ends(table("eps"), sigma_max=3.0)[1] == 3.0
