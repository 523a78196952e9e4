"""The classifier LightningModule: p(y | x) of clean images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from difflab.config.optimizer import OptimizerConfig
from difflab.images import to_float
from difflab.tasks.classifying import Classes, clean_logits
from difflab.tasks.training_module import StepTerms, TrainingModule
from difflab.tasks.windows import MeanWindow
from difflab.types import Batch


class ClassifierModule(TrainingModule):
    """Trains a network to classify clean images by cross entropy.

    network: (x [B, C, H, W], time [B]) -> logits [B, classes]; the time is always 0.
    Logs `loss`, `top1` and `top5` as in `difflab.tasks.classifying.Classes`.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerConfig,
        *,
        classes: int,
        seed: int,
        max_steps: int,
        accumulate: int = 1,
        gradient_clip: float = 0.0,
    ) -> None:
        judged = Classes(classes)
        super().__init__(
            optimizer,
            seed=seed,
            max_steps=max_steps,
            accumulate=accumulate,
            gradient_clip=gradient_clip,
            window=MeanWindow(judged.logged),
            validation_window=MeanWindow(judged.logged),
        )
        self.network = network
        self.classes = judged

    def batch_keys(self) -> tuple[str, ...]:
        return ("label",)

    def networks(self) -> Sequence[nn.Module]:
        return (self.network,)

    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        """Raises ValueError for a class out of range."""
        label = self.classes.label(batch)
        values = self.classes.values(clean_logits(self.network, to_float(batch["image"])), label)
        return StepTerms(values["loss"].mean(), values)
