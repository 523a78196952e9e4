"""What the fixtures were made with: a network that is a formula, replayed noise, and the official names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from difflab.diffusion.levels.rows import space_timesteps
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.base import descending_steps
from difflab.diffusion.schedules import cosine_betas, linear_betas
from difflab.types import Conditioning, Denoised, StepContext
from golden_fixtures import Fixture, draw

PREDICTIONS = {"EPSILON": "eps", "START_X": "x0", "PREVIOUS_X": "prev"}
VARIANCES = {
    "LEARNED": "learned",
    "FIXED_SMALL": "fixed_small",
    "FIXED_LARGE": "fixed_large",
    "LEARNED_RANGE": "learned_range",
}


class FakeNetwork:
    """m = a x + b sin(t / 100), with v = p + q tanh(x) + r cos(t / 100) beside it where the variance is learned."""

    def __init__(self, fixture: Fixture, mean: str, variance: str) -> None:
        self.mean = fixture.spec["fake_model"][mean]
        self.variance = fixture.spec["fake_model"].get(variance)
        self.times: list[float] = []

    def __call__(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        self.times.append(float(time[0]))
        t = time.reshape(-1, *(1,) * (x.ndim - 1))
        out = self.mean["a"] * x + self.mean["b"] * torch.sin(t / 100)
        if self.variance is None:
            return out
        values = self.variance["p"] + self.variance["q"] * torch.tanh(x) + self.variance["r"] * torch.cos(t / 100)
        return torch.cat([out, values], dim=1)


class ReplayedNoise:
    """Noise by rule: call i gives draw(seed, "input:noise_<name(i)>")."""

    def __init__(self, seed: int, names: Sequence[str] | None = None) -> None:
        self.seed = seed
        self.names = names
        self.calls = 0

    def randn_like(self, x: Tensor) -> Tensor:
        name = str(self.calls) if self.names is None else self.names[self.calls]
        self.calls += 1
        return torch.as_tensor(draw(self.seed, f"input:noise_{name}", tuple(x.shape), "input")).to(x.dtype)

    def brownian_like(self, x: Tensor, start: float, end: float, finest: float) -> Tensor:
        return self.randn_like(x)


class Checked:
    """A fixture that remembers which of its arrays were compared."""

    def __init__(self, fixture: Fixture) -> None:
        self.fixture = fixture
        self.names: set[str] = set()

    def __call__(self, name: str, actual: Any, rel: float | None = None) -> None:
        self.fixture.check(name, actual, rel)
        self.names.add(name)

    def assert_all(self) -> None:
        missing = set(self.fixture.arrays) - self.names
        assert not missing, f"{self.fixture.name}: never compared {sorted(missing)}"


def official_process(spec: dict[str, Any], mean: str = "EPSILON", variance: str = "FIXED_SMALL") -> GaussianProcess:
    """The process of a fixture: schedule, T, respacing and rescale_timesteps of guided-diffusion."""
    steps = spec["T"]
    betas = linear_betas(steps, scale_with_steps=True) if spec["schedule"] == "linear" else cosine_betas(steps)
    process = GaussianProcess(
        betas,
        prediction=PREDICTIONS[mean],
        variance=VARIANCES[variance],
        time_input="scaled_index" if spec.get("rescale_timesteps") else "index",
    )
    return process.respace(space_timesteps(steps, spec["respacing"])) if "respacing" in spec else process


def context_at(process: GaussianProcess, row: int) -> StepContext:
    """The step that descends from a row."""
    return next(step for step in descending_steps(process) if step.table_index == row)


class Mixture:
    """The exact denoiser of a mixture of three constant images, as a network that is told the timestep."""

    def __init__(
        self, spec: dict[str, Any], predicts: str = "epsilon", learned: dict[str, float] | None = None
    ) -> None:
        self.parts = list(zip(spec["w"], spec["m"], spec["s"], strict=True))
        self.predicts = predicts
        self.learned = learned

    def __call__(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        u = (float(time[0]) + 1) / 1000
        a = math.exp(-(0.1 * u + 9.95 * u**2))
        alpha, sigma = math.sqrt(a), math.sqrt(1 - a)
        x0 = self.denoise(x.double() / alpha, sigma / alpha)
        eps = (x.double() - alpha * x0) / sigma
        out = {"epsilon": eps, "sample": x0, "v_prediction": alpha * eps - sigma * x0}[self.predicts].to(x.dtype)
        if self.learned is None:
            return out
        return torch.cat([out, self.learned["p"] + self.learned["q"] * torch.tanh(x)], dim=1)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x0 + sigma n = x], in float64."""
        dims = x[0].numel()
        log_r, means = [], []
        for w, m, s in self.parts:
            v = s**2 + sigma**2
            squares = (x - m).square().flatten(1).sum(dim=1)
            log_r.append(math.log(w) - squares / (2 * v) - dims / 2 * math.log(v))
            means.append(m + s**2 / v * (x - m))
        r = torch.softmax(torch.stack(log_r), dim=0)
        return sum(r_k.reshape(-1, *(1,) * (x.ndim - 1)) * mean for r_k, mean in zip(r, means, strict=True))


class MixtureDenoiser:
    """The exact denoiser of a fixture's mixture, in float64, at any level; keeps the noise of every call."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.mixture = Mixture(spec)
        self.sigmas: list[float] = []

    def __call__(self, x: Tensor, step: StepContext) -> Denoised:
        level = step.level
        self.sigmas.append(level.edm_sigma)
        x0 = self.mixture.denoise(x / level.alpha, level.edm_sigma)
        return Denoised(x0, (x - level.alpha * x0) / level.sigma)
