"""From a validated configuration to the module that trains, and to the bare model that samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from difflab.conditioning.base import ConditionerSet
from difflab.conditioning.build import build_conditioners
from difflab.config.model import ModelConfig
from difflab.config.train import TrainConfig
from difflab.diffusion.base_process import Process
from difflab.diffusion.build import build_loss, build_process, build_timesteps
from difflab.errors import user_errors
from difflab.networks.build import build_network

if TYPE_CHECKING:
    from difflab.tasks.training_module import TrainingModule


@dataclass
class Model:
    """The parts that a trained model consists of."""

    config: ModelConfig
    network: nn.Module
    conditioners: ConditionerSet
    process: Process

    def as_module(self) -> nn.Module:
        """One module whose state dict has the keys of every checkpoint and export: `network.*`, `conditioners.*`."""
        return nn.ModuleDict({"network": self.network, "conditioners": self.conditioners})

    def load(self, state: dict[str, Tensor]) -> None:
        """Take `state` under those keys as the weights. Raises RuntimeError where they do not fit.

        The tensors become the parameters, so that a model on the meta device gets real ones.
        """
        self.as_module().load_state_dict(state, strict=True, assign=True)


def build_model(config: ModelConfig) -> Model:
    """The model with initial weights; on the meta device under `torch.device("meta")`."""
    with user_errors("diffusion"):
        process = build_process(config.diffusion)
    with user_errors("network"):
        network = build_network(config.network, image_size=config.image_size, learned_variance=process.learns_variance)
    conditioners = build_conditioners(
        config.conditioning, embedding_dim=config.network.embedding_channels, image_size=config.image_size
    )
    return Model(config, network, conditioners, process)


def build_training_module(config: TrainConfig) -> TrainingModule:
    """The LightningModule of a training configuration's task, with initial weights."""
    from difflab.tasks.denoising.module import DenoisingModule
    from difflab.tasks.noisy_classifier.module import NoisyClassifierModule

    model = build_model(ModelConfig.of(config))
    timesteps = build_timesteps(config.diffusion, model.process)
    seed, max_steps = config.seed, config.trainer.max_steps
    if config.network.kind == "unet_encoder":
        return NoisyClassifierModule(
            model.network,
            model.process,
            timesteps,
            config.optimizer,
            classes=config.network.classes,
            seed=seed,
            max_steps=max_steps,
        )
    return DenoisingModule(
        model.network,
        model.process,
        build_loss(config.diffusion, model.process),
        timesteps,
        model.conditioners,
        config.optimizer,
        seed=seed,
        max_steps=max_steps,
    )
