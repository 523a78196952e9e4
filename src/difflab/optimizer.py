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

    Warm-up is linear, min(1, (step + 1) / warmup_steps); decays reach 0 after the last step and multiply with it.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    done = min(1.0, step / max_steps)
    if config.decay == "linear":
        return warmup * (1.0 - done)
    if config.decay == "cosine":
        return warmup * 0.5 * (1.0 + math.cos(math.pi * done))
    return warmup
