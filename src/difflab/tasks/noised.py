"""The parts shared by all models of noised images."""

from __future__ import annotations

from collections.abc import Mapping

from difflab.conditioning.build import build_conditioners
from difflab.conditioning.config import ConditionerConfig
from difflab.config.fitting import Makes, refuse_unfit
from difflab.config.model import NoisedModelConfig
from difflab.diffusion.build import build_process
from difflab.errors import user_errors
from difflab.networks.build import build_network
from difflab.networks.first_stage.build import build_first_stage
from difflab.tasks.build import NoisedModel


def noised_model(config: NoisedModelConfig, conditioning: Mapping[str, ConditionerConfig]) -> NoisedModel:
    """Builds the model of a configuration, whose network is conditioned on `conditioning`, with initial weights."""
    with user_errors("diffusion"):
        process = build_process(config.diffusion)
    size = config.noised_shape[-1]
    with user_errors("network"):
        network = build_network(config.network, image_size=size, learned_variance=process.learns_variance)
    first_stage = build_first_stage(config.first_stage)
    conditioners = build_conditioners(
        conditioning,
        embedding_dim=config.network.embedding_channels,
        image_size=size,
        encode=None if first_stage is None else first_stage.encode,
    )
    made = {
        name: Makes(conditioner.makes, conditioning[name].makes(_channels(config, conditioning[name])).widths)
        for name, conditioner in conditioners.named()
    }
    with user_errors():
        # Checked on the built parts too: a conditioner's configuration may not say it, or the model may be imported.
        refuse_unfit(made, config.network.reads)
    return NoisedModel(config, network, conditioners, process, first_stage)


def _channels(config: NoisedModelConfig, conditioner: ConditionerConfig) -> int:
    return config.noised_shape[0] if conditioner.encodes else config.channels
