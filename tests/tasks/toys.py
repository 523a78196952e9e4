"""Tasks of which no system has the like yet, small enough to train in milliseconds, on the shapes data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from callbacks.tiny import trainer
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.clock import Clock
from difflab.config.data import DataConfig
from difflab.config.optimizer import LearningRateConfig, OptimizerConfig
from difflab.config.trainer import TrainerConfig
from difflab.data.datamodule import ShardDataModule
from difflab.images import to_float
from difflab.tasks.stepping import Optimized
from difflab.tasks.training_module import StepTerms, TrainingModule
from difflab.tasks.windows import MeanWindow
from difflab.types import Batch

PIXELS = 3 * 4 * 4
LATENT = 5
STEPS = 6


def pixels(batch: Batch) -> Tensor:
    """The images at 4 px, [B, PIXELS]."""
    return F.avg_pool2d(to_float(batch["image"]), 4).flatten(1)


def drawn(seeds: Sequence[int], width: int) -> Tensor:
    """A normal draw for each sample, [B, width]."""
    return torch.stack([torch.randn(width, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


class Adversarial(TrainingModule):
    """A generator of 4 px images against a discriminator, which only training needs; one optimizer each.

    The generator has a bias that no loss asks for before step `LATE`. bad: (step, optimizer) whose loss is NaN, once.
    """

    LATE = 2

    def __init__(self, *, accumulate: int = 1, gradient_clip: float = 0.0, bad: Sequence[tuple[int, str]] = ()) -> None:
        super().__init__(
            OptimizerConfig(kind="adam", lr=0.01, schedule=LearningRateConfig(warmup_steps=4)),
            seed=3,
            max_steps=STEPS,
            window=MeanWindow(("loss", "fooled")),
            validation_window=MeanWindow(("loss", "fooled")),
            accumulate=accumulate,
            gradient_clip=gradient_clip,
        )
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(LATENT, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, PIXELS))
        self.late = nn.Parameter(torch.zeros(PIXELS))
        self.discriminator = nn.Sequential(nn.Linear(PIXELS, 8), nn.Tanh(), nn.Linear(8, 1))
        self.discriminator.register_buffer("told", torch.zeros(()))
        self.bad = list(bad)

    def optimized(self) -> Mapping[str, Optimized]:
        own = nn.ModuleList([self.network])
        own.register_parameter("late", self.late)
        discriminating = OptimizerConfig(kind="adamw", lr=0.02, betas=[0.5, 0.9], weight_decay=0.1)
        return {
            "generator": Optimized((own,), self.optimizer_config),
            "discriminator": Optimized((self.discriminator,), discriminating),
        }

    def training_only(self) -> Sequence[nn.Module]:
        return (self.discriminator,)

    def generated(self, seeds: Sequence[int]) -> Tensor:
        made = self.network(drawn(seeds, LATENT))
        return made if self.train_step < self.LATE else made + self.late

    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        logits = self.discriminator(self.generated(seeds))[:, 0]
        loss = F.softplus(-logits)
        return StepTerms(loss.mean(), {"loss": loss, "fooled": (logits > 0).float()})

    def optimize(self, batch: Batch) -> Tensor:
        shown = torch.zeros(())
        for part in self.parts(batch):
            terms = self.terms(part.batch, part.seeds, training=True)
            self.record(terms)
            self.add_gradients(self.spoilt(terms.minimised, "generator"), part, "generator")
            shown = shown + terms.minimised.detach() / part.count
        self.update("generator")
        for part in self.parts(batch):
            told = F.softplus(-self.discriminator(pixels(part.batch)))
            found_out = F.softplus(self.discriminator(self.generated(part.seeds).detach()))
            self.add_gradients(self.spoilt((told + found_out).mean(), "discriminator"), part, "discriminator")
        self.update("discriminator")
        self.discriminator.get_buffer("told").add_(1)
        return shown

    def spoilt(self, loss: Tensor, optimizer: str) -> Tensor:
        if (self.train_step, optimizer) in self.bad:
            self.bad.remove((self.train_step, optimizer))
            return loss * float("nan")
        return loss


class Contrastive(TrainingModule):
    """Two views of an image find each other among all of a share (InfoNCE); `whole` keeps how many those were."""

    def __init__(self, *, accumulate: int = 1) -> None:
        super().__init__(
            OptimizerConfig(kind="adam", lr=0.01),
            seed=3,
            max_steps=STEPS,
            window=MeanWindow(),
            validation_window=MeanWindow(),
            accumulate=accumulate,
        )
        torch.manual_seed(0)
        self.left, self.right = nn.Linear(PIXELS, 4), nn.Linear(PIXELS, 4)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.whole: list[int] = []

    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        seen = pixels(batch)
        left, right = self.left(seen), self.right(seen + 0.1 * drawn(seeds, PIXELS))
        logits = self.logit_scale.exp() * F.normalize(left, dim=1) @ F.normalize(right, dim=1).T
        loss = F.cross_entropy(logits, torch.arange(len(seen)), reduction="none")
        return StepTerms(loss.mean(), {"loss": loss})

    def optimize(self, batch: Batch) -> Tensor:
        (share,) = self.parts(batch, 1)
        terms = self.terms(share.batch, share.seeds, training=True)
        self.whole.append(len(share.seeds))
        self.record(terms)
        self.add_gradients(terms.minimised, share)
        self.update()
        return terms.minimised


def fit(
    module: TrainingModule,
    data: Path,
    root: Path,
    callbacks: Sequence[Callback] = (),
    *,
    steps: int = STEPS,
    resume: Path | None = None,
    **options: Any,
) -> pl.Trainer:
    """Train on batches of 8 images until the clock says `steps`."""
    run = trainer(root, -1, [Clock(steps), *callbacks], plugins=[AtomicCheckpointIO()], max_epochs=1, **options)
    config = DataConfig(path=str(data), image_size=16, batch_size=8, workers=0)
    shards = ShardDataModule(config, TrainerConfig(max_steps=steps, accumulate=module.accumulate), seed=0)
    run.fit(module, shards, ckpt_path=resume, weights_only=True)
    return run
