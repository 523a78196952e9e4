"""Builds objects from the configuration of the diffusion, sampler and guidance groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from difflab.config.axes import DIFFUSIONS, GUIDANCE, SAMPLERS
from difflab.config.registry import load
from difflab.diffusion.base_process import Process
from difflab.diffusion.guidance.base import Guidance, GuidanceParts
from difflab.diffusion.losses import Loss
from difflab.diffusion.samplers.base import Sampler
from difflab.diffusion.thresholding import DynamicThreshold, StaticThreshold, Threshold
from difflab.diffusion.timesteps import TimestepSampler

if TYPE_CHECKING:
    from difflab.config.diffusion import DiffusionBase
    from difflab.config.guidance import GuidanceBase
    from difflab.config.sampler import SamplerConfig


def build_process(config: DiffusionBase) -> Process:
    """Builds the training process, shared by the model, loss, sampler and evaluation."""
    return DIFFUSIONS.builder(config)(config)


def build_loss(config: DiffusionBase, process: Process) -> Loss:
    """Builds the training loss for the result of `build_process`."""
    return load(config.loss_builder)(config, process)


def build_timesteps(config: DiffusionBase, process: Process) -> TimestepSampler:
    """Builds the sampler of training times for the result of `build_process`: rows of a table, points between them, or
    positions in [0, 1).
    """
    return load(config.times_builder)(config, process)


def build_sampler(config: SamplerConfig) -> Sampler:
    """Builds the sampler with its steps and spacing."""
    return SAMPLERS.builder(config)(config)


def build_guidance(config: GuidanceBase, parts: GuidanceParts | None = None) -> tuple[Guidance, ...]:
    """Builds the guidance, in the order it is applied; empty for kind=none.

    Raises ValueError if a part that the configuration needs is missing.
    """
    return tuple(GUIDANCE.builder(config)(config, GuidanceParts() if parts is None else parts))


def build_threshold(config: GuidanceBase, *, latents: bool = False) -> Threshold | None:
    """Builds the threshold that keeps the predicted x0 in range, or returns None.

    latents: whether x0 is a latent. Raises ValueError for a threshold of latents.
    """
    chosen = config.threshold_of(latents=latents)
    if chosen == "static":
        return StaticThreshold(config.static_limit)
    if chosen == "dynamic":
        return DynamicThreshold(config.dynamic_percentile, config.dynamic_maximum)
    return None
