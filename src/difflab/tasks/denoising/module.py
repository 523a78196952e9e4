"""The LightningModule that trains a denoiser."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from difflab.conditioning.base import ConditionerSet
from difflab.config.optimizer import OptimizerConfig
from difflab.diffusion.base_process import Process
from difflab.diffusion.losses import Loss
from difflab.diffusion.timesteps import TimestepSampler
from difflab.errors import user_errors
from difflab.networks.first_stage.model import FirstStage
from difflab.tasks.noised_module import NoisedModule
from difflab.tasks.training_module import StepTerms
from difflab.types import Batch


class DenoisingModule(NoisedModule):
    """Trains a network to denoise (Ho et al. 2020, algorithm 1). Logs `loss`."""

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        loss: Loss,
        timesteps: TimestepSampler,
        conditioners: ConditionerSet,
        optimizer: OptimizerConfig,
        *,
        first_stage: FirstStage | None = None,
        seed: int,
        max_steps: int,
        accumulate: int = 1,
        gradient_clip: float = 0.0,
    ) -> None:
        super().__init__(
            network,
            process,
            timesteps,
            conditioners,
            optimizer,
            first_stage=first_stage,
            seed=seed,
            max_steps=max_steps,
            accumulate=accumulate,
            gradient_clip=gradient_clip,
        )
        self.loss = loss
        augmentations = (conditioner.augmentation for _, conditioner in conditioners.named())
        self.augmentation = next((one for one in augmentations if one is not None), None)

    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        noised = self.noised(batch, seeds, self.augmentation if training else None)
        if noised.augment_label is not None:
            batch = {**batch, "augment_label": noised.augment_label}
        dropped = {
            name: noised.source.rand() < conditioner.drop_rate
            for name, conditioner in self.conditioners.named()
            if training and conditioner.drop_rate > 0
        }
        # Data may have what the model does not know: a class of a map, a phrase of a box.
        with user_errors():
            conditioning = self.conditioners.conditioning(batch, dropped, seeds)
        seen = self.process.network_input(noised.x_t, noised.t)
        output = self.network(seen, self.process.network_time(noised.t), conditioning)
        loss = self.loss(output.float(), noised.x0, noised.x_t, noised.t, noised.noise)["loss"]
        return StepTerms((loss * noised.weight).mean(), {"loss": loss}, noised.t)
