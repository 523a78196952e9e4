"""The noisy classifier LightningModule: p(y | x_t) for classifier guidance."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from difflab.conditioning.base import ConditionerSet
from difflab.config.optimizer import OptimizerConfig
from difflab.diffusion.base_process import Process
from difflab.diffusion.timesteps import TimestepSampler
from difflab.tasks.noised_module import NoisedModule
from difflab.tasks.training_module import StepTerms
from difflab.types import Batch

TOP_K = (1, 5)


class NoisyClassifierModule(NoisedModule):
    """Trains a network to classify noised images by cross entropy (ADM, section 4; `classifier_train.py`).

    network: (x_t [B, C, H, W], time [B]) -> logits [B, classes].
    Logs `loss` and, as 0 or 1 for each sample, `top1` and `top5`: whether the true class has the largest logit or one
    of the five largest; the latter only if there are more than five classes.
    """

    classes: int
    top_k: tuple[int, ...]

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
        top_k = tuple(k for k in TOP_K if k == 1 or k < classes)
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
            logged=("loss", *(f"top{k}" for k in top_k)),
        )
        self.classes = classes
        self.top_k = top_k

    def batch_keys(self) -> tuple[str, ...]:
        return ("label",)

    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        """Raises ValueError for a class out of range."""
        label = self._label(batch)
        noised = self.noised(batch, seeds)
        seen = self.process.network_input(noised.x_t, noised.t)
        logits = self.network(seen, self.process.network_time(noised.t)).float()
        loss = F.cross_entropy(logits, label, reduction="none")
        hits = {f"top{k}": _among_likeliest(logits.detach(), label, k) for k in self.top_k}
        return StepTerms((loss * noised.weight).mean(), {"loss": loss, **hits}, noised.t)

    def _label(self, batch: Batch) -> Tensor:
        label = batch["label"]
        # On a GPU this check would synchronize at every step; there the loader has refused such labels before.
        outside = [c for c in label.tolist() if not 0 <= c < self.classes] if label.device.type == "cpu" else []
        if outside:
            raise ValueError(f"class {outside[0]} is not in 0..{self.classes - 1}, the classes of this classifier")
        return label


def _among_likeliest(logits: Tensor, label: Tensor, k: int) -> Tensor:
    """1 if the true class has one of the k largest logits, else 0; float32 [B]."""
    return (logits.topk(k, dim=-1).indices == label[:, None]).any(dim=-1).float()
