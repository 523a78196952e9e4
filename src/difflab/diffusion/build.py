"""From the configuration of the diffusion, sampler and guidance groups to the objects."""

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
    """The training process. Model, loss, sampler and evaluation all take it from here."""
    return DIFFUSIONS.builder(config)(config)


def build_loss(config: DiffusionBase, process: Process) -> Loss:
    """The training loss on `build_process`'s result."""
    return load(config.loss_builder)(config, process)


def build_timesteps(config: DiffusionBase, process: Process) -> TimestepSampler:
    """How training times are drawn of `build_process`'s result: rows of a table, places between them, or positions in
    [0, 1).
    """
    return load(config.times_builder)(config, process)


def build_sampler(config: SamplerConfig) -> Sampler:
    """The sampler with its steps and spacing."""
    return SAMPLERS.builder(config)(config)


def build_guidance(config: GuidanceBase, parts: GuidanceParts | None = None) -> tuple[Guidance, ...]:
    """The guidance in the order it is applied; kind=none has none.

    Raises ValueError where a part is missing that the configuration needs.
    """
    return tuple(GUIDANCE.builder(config)(config, GuidanceParts() if parts is None else parts))


def build_threshold(config: GuidanceBase) -> Threshold | None:
    """What keeps the predicted x0 in range, or None."""
    if config.threshold == "static":
        return StaticThreshold(config.static_limit)
    if config.threshold == "dynamic":
        return DynamicThreshold(config.dynamic_percentile, config.dynamic_maximum)
    return None
