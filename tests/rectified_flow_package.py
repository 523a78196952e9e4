"""A package that brings a paper of its own: rectified flow (Liu et al. 2022; Lipman et al. 2022), every part new."""

from __future__ import annotations

from plugin_packages import Packages

CONFIG = '''
from typing import Annotated, ClassVar, Literal
from pydantic import Field
from difflab.config.axes import DIFFUSIONS, PREDICTIONS, SAMPLERS
from difflab.config.diffusion import DiffusionBase
from difflab.config.sampler import SamplerBase

PREDICTIONS.register("flow", "rectified_flow.parts:Flow")

@DIFFUSIONS.register("rectified_flow.parts:RectifiedFlow")
class RectifiedFlowConfig(DiffusionBase):
    """x_t = (1 - t) x0 + t eps with uniform t, the network regresses eps - x0."""

    loss_builder: ClassVar[str] = "rectified_flow.parts:FlowLoss"
    times_builder: ClassVar[str] = "rectified_flow.parts:UniformTimes"

    kind: Literal["rectified_flow"]
    prediction: Annotated[str, PREDICTIONS] = "flow"
    latest: float = Field(default=0.999, gt=0.5, lt=1)

@SAMPLERS.register("rectified_flow.parts:FlowEuler")
class FlowEulerConfig(SamplerBase):
    """Euler's method in t."""

    kind: Literal["flow_euler"]
    steps: int = Field(default=20, ge=1)
'''
PARTS = """
import torch
from difflab.diffusion.base_process import Process
from difflab.diffusion.predictions import Prediction, Views
from difflab.diffusion.process import CLEAN
from difflab.diffusion.samplers.euler import EulerSampler
from difflab.diffusion.timesteps import TimestepSampler
from difflab.types import NoiseLevel


class Flow(Prediction):
    name = "flow"
    scales_input = True

    def views(self, alpha, sigma):
        total = alpha + sigma
        return Views(1.0 / total, -sigma / total, 1.0 / total, alpha / total)

    def target(self, x0, eps, alpha, sigma):
        return eps - x0

    def input_scale(self, alpha, sigma):
        return 1.0 / (alpha + sigma)


def level(t):
    size = ((1.0 - t) ** 2 + t**2) ** 0.5
    return NoiseLevel((1.0 - t) / size, t / size)


class RectifiedFlow(Process):
    def __init__(self, config):
        self.prediction, self.latest = Flow(config.sigma_data), config.latest

    def alpha_sigma(self, t, x):
        t = t.to(x).reshape(-1, *(1,) * (x.ndim - 1))
        size = torch.hypot(1.0 - t, t)
        return (1.0 - t) / size, t / size

    def network_time(self, t):
        return 1000.0 * t.float()

    def snr(self, t):
        return ((1.0 - t.double()) / t.double()) ** 2

    def time_at(self, level):
        return 1000.0 * level.sigma / (level.alpha + level.sigma)

    @property
    def sigma_range(self):
        return (1.0 - self.latest) / self.latest, self.latest / (1.0 - self.latest)

    def even_levels(self, n):
        return [level(self.latest * (n - i) / n) for i in range(n)]


class UniformTimes(TimestepSampler):
    def __init__(self, config, process):
        pass

    def sample(self, u):
        return u, torch.ones_like(u)


class FlowLoss:
    def __init__(self, config, process):
        self.process = process

    def __call__(self, model_output, x0, x_t, t, noise):
        return {"loss": (self.process.target(x0, noise, x_t, t) - model_output).square().flatten(1).mean(1)}


class FlowGrid:
    def __init__(self, steps):
        self.steps = steps

    def levels(self, process):
        return [*(level(1.0 - i / self.steps) for i in range(self.steps)), CLEAN]

    def level_of_sigma(self, process, noise):
        return process.level_of_sigma(noise)


class FlowEuler(EulerSampler):
    def __init__(self, config):
        super().__init__(FlowGrid(config.steps))
"""
EXPERIMENT = """# @package _global_
defaults:
  - override /diffusion: rectified_flow
  - override /network: unet_small
  - override /sampler: flow_euler
  - override /data: shapes32
  - override /optimizer: adamw
  - override /metrics: shapes

data:
  batch_size: 16
trainer:
  max_steps: 1500
"""


def install_rectified_flow(packages: Packages) -> None:
    """Put it where Python finds it."""
    packages.install(
        "rectified-flow",
        {
            "rectified_flow/__init__.py": CONFIG,
            "rectified_flow/parts.py": PARTS,
            "rectified_flow/conf/diffusion/rectified_flow.yaml": "defaults: [rectified_flow_defaults, _self_]\n",
            "rectified_flow/conf/experiment/rectified_flow/shapes32.yaml": EXPERIMENT,
            "rectified_flow/conf/sampler/flow_euler.yaml": "defaults: [flow_euler_defaults, _self_]\n",
        },
    )
