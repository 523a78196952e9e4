"""The learning rate as a pure function of the step, so that a resumed run has no schedule state to lose."""

from __future__ import annotations

import math

from difflab.config.optimizer import LearningRateConfig


def learning_rate_factor(config: LearningRateConfig, step: int, max_steps: int) -> float:
    """The factor on the base rate for the optimised batch number `step` (0 is the first) of `max_steps`.

    Warm-up is linear, min(1, (step + 1) / warmup_steps); decays reach 0 after the last step and multiply with it.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    done = min(1.0, step / max_steps)
    if config.decay == "linear":
        return warmup * (1.0 - done)
    if config.decay == "cosine":
        return warmup * 0.5 * (1.0 + math.cos(math.pi * done))
    return warmup
