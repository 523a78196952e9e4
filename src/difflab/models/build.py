"""From a validated configuration to the module that trains, and to the bare model that samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from difflab.conditioning.base import ConditionerSet
from difflab.conditioning.build import build_conditioners
from difflab.config.model import ModelConfig
from difflab.config.train import TrainConfig
from difflab.diffusion.build import build_loss, build_process, build_timesteps
from difflab.diffusion.process import GaussianProcess
from difflab.errors import user_errors
from difflab.networks.build import build_network

if TYPE_CHECKING:
    from difflab.models.diffusion import DiffusionModule


@dataclass
class Model:
    """The parts that a trained model consists of."""

    config: ModelConfig
    network: nn.Module
    conditioners: ConditionerSet
    process: GaussianProcess

    def as_module(self) -> nn.Module:
        """One module whose state dict has the keys of every checkpoint and export: `network.*`, `conditioners.*`."""
        return nn.ModuleDict({"network": self.network, "conditioners": self.conditioners})

    def load(self, state: dict[str, Tensor]) -> None:
        """Load weights under those keys. Raises RuntimeError where they do not fit; see `pipelines.stored`."""
        self.as_module().load_state_dict(state, strict=True)


def build_model(config: ModelConfig) -> Model:
    """The model with initial weights; on the meta device under `torch.device("meta")`."""
    with user_errors("diffusion"):
        process = build_process(config.diffusion)
    with user_errors("network"):
        network = build_network(config.network, image_size=config.image_size, learned_variance=process.learns_variance)
    conditioners = build_conditioners(config.conditioning, embedding_dim=config.network.embedding_channels)
    return Model(config, network, conditioners, process)


def build_diffusion(config: TrainConfig) -> DiffusionModule:
    """The LightningModule of a training configuration, with initial weights."""
    from difflab.models.diffusion import DiffusionModule

    model = build_model(ModelConfig.of(config))
    return DiffusionModule(
        model.network,
        model.process,
        build_loss(config.diffusion, model.process),
        build_timesteps(config.diffusion, model.process),
        model.conditioners,
        config.optimizer,
        seed=config.seed,
        max_steps=config.trainer.max_steps,
    )
