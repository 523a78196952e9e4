"""Builds the training module, or the bare model for sampling, from a validated configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from difflab.conditioning.base import ConditionerSet
from difflab.config.model import ModelConfig, NoisedModelConfig
from difflab.config.registry import load
from difflab.config.task import TASKS
from difflab.config.train import TrainConfig
from difflab.diffusion.base_process import Process
from difflab.networks.first_stage.model import FirstStage

if TYPE_CHECKING:
    from difflab.tasks.training_module import TrainingModule


@dataclass(frozen=True)
class Model:
    """The parts of a trained model."""

    config: ModelConfig
    network: nn.Module
    conditioners: ConditionerSet

    def as_module(self) -> nn.ModuleDict:
        """One module whose state dict has the keys of every checkpoint and export: `network.*`, `conditioners.*`."""
        return nn.ModuleDict({"network": self.network, "conditioners": self.conditioners})

    def load(self, state: dict[str, Tensor]) -> None:
        """Loads `state`, under those keys, as the weights. Raises RuntimeError if they do not fit.

        The tensors become the parameters, so that a model on the meta device receives real ones.
        """
        self.as_module().load_state_dict(state, strict=True, assign=True)


@dataclass(frozen=True)
class NoisedModel(Model):
    """One that looks at noised images or latents, and what noises them.

    first_stage: what encodes images as those latents; None if images are noised.
    """

    config: NoisedModelConfig
    process: Process
    first_stage: FirstStage | None = None

    def as_module(self) -> nn.ModuleDict:
        """Also with `first_stage.*`, if there is one."""
        module = super().as_module()
        if self.first_stage is not None:
            module["first_stage"] = self.first_stage
        return module


def build_model(config: ModelConfig) -> Model:
    """Builds the model with initial weights; on the meta device under `torch.device("meta")`."""
    return load(TASKS[config.task].build_model)(config)


def build_training_module(config: TrainConfig) -> TrainingModule:
    """Builds the LightningModule of a training configuration's task, with initial weights."""
    module: TrainingModule = load(TASKS[config.task].build_module)(config)
    module.plugins = config.plain()["plugins"]
    return module
