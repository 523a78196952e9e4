"""The registry of tasks: the configurations of each task, and its builders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from difflab.config.base import summary_of
from difflab.config.foreign import NOT_INSTALLED, missing
from difflab.config.registry import Axis, refuse_unfit_name, two_by_one_name
from difflab.errors import UserError

if TYPE_CHECKING:
    from difflab.config.model import ModelConfig
    from difflab.config.train import TrainConfig

T = TypeVar("T", bound="type[TrainConfig]")


@dataclass(frozen=True)
class Task:
    """One task. Builders are `module:function`, imported only when something is built.

    train:        the configuration of its runs.
    model:        the configuration of the stored model.
    build_model:  (its model configuration) -> `Model`, with initial weights.
    build_module: (its training configuration) -> `TrainingModule`, with initial weights.
    """

    train: type[TrainConfig]
    model: type[ModelConfig]
    build_model: str
    build_module: str

    @property
    def summary(self) -> str:
        """Its description in one line."""
        return summary_of(self.model)

    @property
    def module(self) -> str:
        """The module that registers it."""
        return self.train.__module__

    @property
    def package(self) -> str:
        """Its top-level package."""
        return self.module.partition(".")[0]


class Tasks(Axis[Task]):
    """The tasks by name, difflab's own and those of installed packages. A task is registered with its configurations:

        @TASKS.register(MineModelConfig, build_model="mine.build:build_model", build_module="mine.build:build_module")
        class MineTrainConfig(TrainConfig):
            task: Literal["mine"]

    Its file `conf/task/<name>.yaml` adds the groups that it has besides those of every training run.
    """

    group = "task"

    def register(self, model: type[ModelConfig], *, build_model: str, build_module: str) -> Callable[[T], T]:
        """Class decorator that registers a configuration of runs, whose `task` is a literal, as a task.

        Raises UserError if two packages register the same name.
        """

        def add(train: T) -> T:
            (name,) = get_args(train.model_fields["task"].annotation)
            refuse_unfit_name(self.group, name)
            there = self._entries.get(name)
            if there is not None and there.train.__module__ != train.__module__:
                raise two_by_one_name(self.group, name, there.module, train.__module__)
            self._entries[name] = Task(train, model, build_model, build_module)
            return train

        return add

    def of(self, content: Mapping[str, Any]) -> Task:
        """The task named by the plain contents of a configuration.

        Raises UserError if it is missing or unknown.
        """
        if "task" not in content:
            raise UserError(f"missing key 'task': give it a value, as in task={next(iter(self))}")
        name = content["task"]
        if isinstance(name, str) and name in self:
            return self[name]
        if (package := missing(content, "task")) is not None:
            raise UserError(f"task={name!r} comes with {package}, {NOT_INSTALLED}")
        raise UserError(f"task={name!r} is not known; choose one of {', '.join(self)}")


TASKS = Tasks(
    "difflab.tasks.denoising.config",
    "difflab.tasks.noisy_classifier.config",
    "difflab.tasks.classifier.config",
    "difflab.tasks.contrastive.config",
    "difflab.tasks.autoencoder.config",
)
"""The registered tasks."""
