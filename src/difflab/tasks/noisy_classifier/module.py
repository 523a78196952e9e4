"""The noisy classifier LightningModule: p(y | x_t) for classifier guidance."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from difflab.conditioning.base import ConditionerSet
from difflab.config.optimizer import OptimizerConfig
from difflab.diffusion.base_process import Process
from difflab.diffusion.timesteps import TimestepSampler
from difflab.tasks.classifying import Classes
from difflab.tasks.noised_module import NoisedModule
from difflab.tasks.training_module import StepTerms
from difflab.types import Batch


class NoisyClassifierModule(NoisedModule):
    """Trains a network to classify noised images by cross entropy (ADM, section 4; `classifier_train.py`).

    network: (x_t [B, C, H, W], time [B]) -> logits [B, classes].
    Logs `loss`, `top1` and `top5` as in `difflab.tasks.classifying.Classes`.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        timesteps: TimestepSampler,
        optimizer: OptimizerConfig,
        *,
        classes: int,
        seed: int,
        max_steps: int,
        accumulate: int = 1,
        gradient_clip: float = 0.0,
    ) -> None:
        told = Classes(classes)
        super().__init__(
            network,
            process,
            timesteps,
            ConditionerSet({}),
            optimizer,
            seed=seed,
            max_steps=max_steps,
            accumulate=accumulate,
            gradient_clip=gradient_clip,
            logged=told.logged,
        )
        self.classes = told

    def batch_keys(self) -> tuple[str, ...]:
        return ("label",)

    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        """Raises ValueError for a class out of range."""
        label = self.classes.label(batch)
        noised = self.noised(batch, seeds)
        seen = self.process.network_input(noised.x_t, noised.t)
        values = self.classes.values(self.network(seen, self.process.network_time(noised.t)), label)
        return StepTerms((values["loss"] * noised.weight).mean(), values, noised.t)
