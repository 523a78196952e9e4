"""All that can be learned: one table, without torch, of the tasks and of where each is built."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from difflab.config.axes import NETWORKS
from difflab.config.model import ModelConfig
from difflab.config.network import NetworkBase
from difflab.config.train import TrainConfig
from difflab.errors import UserError
from difflab.tasks.denoising.config import DenoisingModelConfig, DenoisingTrainConfig
from difflab.tasks.noisy_classifier.config import NoisyClassifierModelConfig, NoisyClassifierTrainConfig


@dataclass(frozen=True)
class Task:
    """One of them. Builders are `module:function`, imported only when something is built.

    train:        the configuration of its runs.
    model:        the configuration of what is stored of them.
    build_model:  (its model configuration) -> `Model`, with initial weights.
    build_module: (its training configuration) -> `TrainingModule`, with initial weights.
    """

    train: type[TrainConfig]
    model: type[ModelConfig]
    build_model: str
    build_module: str

    @property
    def network_kinds(self) -> tuple[str, ...]:
        """The kinds of networks that it trains."""
        return tuple(
            kind.name
            for kind in NETWORKS.values()
            if cast("type[NetworkBase]", kind.config).gives == self.train.network_gives
        )


TASKS = {
    "denoising": Task(
        DenoisingTrainConfig,
        DenoisingModelConfig,
        build_model="difflab.tasks.denoising.build:build_model",
        build_module="difflab.tasks.denoising.build:build_module",
    ),
    "noisy_classifier": Task(
        NoisyClassifierTrainConfig,
        NoisyClassifierModelConfig,
        build_model="difflab.tasks.noisy_classifier.build:build_model",
        build_module="difflab.tasks.noisy_classifier.build:build_module",
    ),
}


def task_of(content: Mapping[str, Any]) -> Task:
    """The task that plain contents of a configuration name.

    Raises UserError where they name none that is known.
    """
    if "task" not in content:
        raise UserError(f"missing key 'task': give it a value, as in task={next(iter(TASKS))}")
    name = content["task"]
    if not isinstance(name, str) or name not in TASKS:
        raise UserError(f"task={name!r} is not known; choose one of {', '.join(TASKS)}")
    return TASKS[name]


def load_builder(name: str) -> Any:
    """The function that `module:function` names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
