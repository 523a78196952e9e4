"""The configuration that every training run has; each task adds its own axes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast

from pydantic import Field, model_validator

from difflab.config.callbacks import CallbacksConfig
from difflab.config.data import DataConfig
from difflab.config.foreign import RecordedConfig
from difflab.config.init import InitConfig
from difflab.config.learning import TrainingTexts
from difflab.config.logger import LoggerConfig
from difflab.config.metrics import JudgedConfig
from difflab.config.model import ModelConfig
from difflab.config.network import Gives
from difflab.config.optimizer import OptimizerConfig
from difflab.config.task import TASKS
from difflab.config.trainer import TrainerConfig

Model = TypeVar("Model", bound=ModelConfig)


class TrainConfig(RecordedConfig, JudgedConfig):
    """`difflab train`. Validating this class returns the configuration of the task named by `task`."""

    free: ClassVar[frozenset[str]] = frozenset()
    """The keys of the task that may change when a run is resumed."""
    network_gives: ClassVar[Gives] = "images"
    """The output of the networks that the task trains."""

    experiment: str
    """The experiment, a file of `conf/experiment`; null = the defaults, called custom."""
    task: str
    """What is learned: one of `difflab.config.task.TASKS`."""
    name: str | None
    """Name of the run below output_root/experiment; null = derived from the configuration, so that the same command
    resumes the same run."""
    output_root: str
    """Directory of all runs."""
    seed: Annotated[int, Field(ge=0)]
    """The seed of the initial weights, the order of the data, the noise and the dropout."""
    resume: str
    """Whether to resume: auto = from checkpoints/last.ckpt if there is one; never = refuse a directory that contains a
    run; or the path of a checkpoint, of this run or another one, to start from. The same command given again, such as
    after a requeue, resumes from the run's own last.ckpt."""
    data: DataConfig
    """The data set, and how its images are prepared."""
    optimizer: OptimizerConfig
    """The optimizer and its learning-rate schedule."""
    init: InitConfig
    """Where the weights of a new run come from, and which of them are trained."""
    trainer: TrainerConfig
    """Devices, precision and length of training."""
    callbacks: CallbacksConfig
    """What runs alongside training: averages, checkpoints, samples, evaluations, guards; null leaves one out."""
    logger: LoggerConfig
    """Where metrics are logged; null (false, if it has no options) leaves one out."""

    def described(self) -> Self:
        """The configuration with what the files of published models say that it uses, as long as it does not say so
        itself. Raises UserError if there are none."""
        return self

    def completed(self, texts: TrainingTexts, earlier: ModelConfig | None = None) -> Self:
        """The configuration with what its task learns from the texts of its data before training, such as a
        vocabulary; the same texts give the same. Raises UserError if there are none.

        earlier: the model whose weights it begins with, if any; what that one learned is taken over.
        """
        return self

    def remarks(self, samples: int) -> list[str]:
        """What is possible, but hardly meant, about training on so many samples an epoch, one line each."""
        return []

    @classmethod
    def chosen(cls, content: Mapping[str, Any]) -> type[Self]:
        return cast(type[Self], TASKS.of(content).train) if cls is TrainConfig else cls

    @abstractmethod
    def model(self) -> ModelConfig:
        """The stored configuration of the model that this trains."""

    def stored_as(self, model: type[Model]) -> Model:
        """A model configuration filled from this configuration and its data."""
        own = {name: getattr(self, name) for name in model.model_fields if name in type(self).model_fields}
        own.pop("plugins")
        shape = {"image_size": self.data.image_size, "channels": self.data.channels}
        return model(**own, **shape, class_names=self.data.class_names)

    @model_validator(mode="after")
    def _shared_parts_fit(self) -> Self:
        if self.data.batch_size % self.trainer.accumulate:
            raise ValueError(
                f"data.batch_size={self.data.batch_size} cannot be split into trainer.accumulate="
                f"{self.trainer.accumulate} equal parts; choose a divisor of the batch size"
            )
        for _, callback in self.callbacks.active:
            callback.refuse_training(self)
        return self
