"""Every sampler that draws, as its file in conf/ says, on few steps, and a correlated Gaussian for them to draw."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from difflab.config.groups import choices_of, contents
from difflab.config.sampler import SamplerConfig
from difflab.diffusion.build import build_sampler
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.base import Sampler
from difflab.diffusion.schedules import linear_betas
from difflab.types import Denoised, StepContext

DRAWING = [name for name in choices_of("sampler") if name != "ddim_inversion"]
MULTISTEP = {"lms", "plms", "dpm_solver_pp", "dpm_solver_pp_2m_sde", "dpm_solver_pp_3m_sde", "unipc"}
BROWNIAN = {"dpm_solver_pp_sde", "dpm_solver_pp_2m_sde", "dpm_solver_pp_3m_sde"}
RANDOM = BROWNIAN | {"ancestral", "euler_ancestral", "dpm_2_ancestral", "dpm_solver_pp_2s_ancestral"}

PROCESS = GaussianProcess(linear_betas(1000), prediction="v")


def sampler_named(name: str, steps: int = 10, **changes: Any) -> Sampler:
    """The sampler of conf/sampler/`name`.yaml."""
    config = contents("sampler", name)
    assert config is not None, name
    return build_sampler(TypeAdapter(SamplerConfig).validate_python(config | {"steps": steps} | changes))


class Correlated:
    """Data [B, D] of N(mean, covariance) with its exact denoiser; images [B, 1, 1, D] too."""

    def __init__(self, mean: list[float], covariance: list[list[float]]) -> None:
        self.mean = torch.tensor(mean, dtype=torch.float64)
        self.covariance = torch.tensor(covariance, dtype=torch.float64)

    def __call__(self, x: Tensor, step: StepContext) -> Denoised:
        alpha, sigma = step.level.alpha, step.level.sigma
        total = alpha**2 * self.covariance + sigma**2 * torch.eye(len(self.mean), dtype=torch.float64)
        gain = alpha * self.covariance @ torch.linalg.inv(total)
        x0 = (self.mean + (x.double() - alpha * self.mean) @ gain.T).to(x.dtype)
        return Denoised(x0, (x - alpha * x0) / sigma)

    def given_first(self, value: float) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the other coordinates where the first one has this value."""
        (own, across), others = self.covariance[0].split([1, len(self.mean) - 1]), self.covariance[1:, 1:]
        return self.mean[1:] + across / own * (value - self.mean[0]), others - torch.outer(across, across) / own


class Normals:
    """Standard normals of one generator, float64: for moments, where nobody asks whose they are."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def randn_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)

    def brownian_like(self, x: Tensor, start: float, end: float, finest: float) -> Tensor:
        return self.randn_like(x)
