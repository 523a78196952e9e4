"""The optimizer of a configuration, and its learning rate.

The rate is a pure function of the step, so that a resumed run has no schedule state to lose.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from difflab.config.optimizer import LearningRateConfig, OptimizerConfig


class _Eager:
    """An optimizer's methods without torch's guard against compiling them.

    No optimizer is compiled here, and the first call of a guarded method imports torch's compiler, taking a second.
    """

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class Adam(_Eager, torch.optim.Adam):
    """`torch.optim.Adam`, never compiled."""


class AdamW(_Eager, torch.optim.AdamW):
    """`torch.optim.AdamW`, never compiled."""


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter], *, fused: bool = True) -> Optimizer:
    """Adam or AdamW over `parameters`; fused: one kernel for all of them.

    If only matrices decay, the others (those with fewer than two dimensions) are a second group.
    """
    kind = {"adam": Adam, "adamw": AdamW}[config.kind]
    trained = list(parameters)
    groups: list[dict[str, Any]] = [{"params": trained}]
    if config.decayed == "matrices":
        matrices = [parameter for parameter in trained if parameter.ndim >= 2]
        vectors = [parameter for parameter in trained if parameter.ndim < 2]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return kind(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=fused,
    )


def learning_rate_factor(config: LearningRateConfig, step: int, max_steps: int) -> float:
    """The factor on the base rate for the optimizer step number `step` (0 is the first) of `max_steps`.

    Warm-up is linear: min(1, (step + 1) / warmup_steps), or from f = `warmup_from` on f + (1 - f) step / warmup_steps.
    Decays reach `decay_to` after the last step, and multiply with it.
    """
    if step < config.warmup_steps:
        decayed = _decay(config, step, max_steps) if config.decay_from == "start" else 1.0
        return _warmup(config, step) * decayed
    return _decay(config, step, max_steps)


def _warmup(config: LearningRateConfig, step: int) -> float:
    if config.warmup_from is None:
        return (step + 1) / config.warmup_steps
    return config.warmup_from + (1.0 - config.warmup_from) * step / config.warmup_steps


def _decay(config: LearningRateConfig, step: int, max_steps: int) -> float:
    if config.decay == "none":
        return 1.0
    begin = config.warmup_steps if config.decay_from == "warmup" else 0
    # A warm-up as long as the training leaves no step to decay in.
    done = min(1.0, (step - begin) / max(max_steps - begin, 1))
    left = 1.0 - done if config.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return config.decay_to + (1.0 - config.decay_to) * left
