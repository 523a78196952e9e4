"""Classifier guidance (Dhariwal & Nichol 2021, ADM): the gradient of log p(y | x_t) guides samples to a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from difflab.diffusion.guidance.base import Guidance, Interval, LogProb, check_interval, is_within
from difflab.types import NoiseLevel, StepContext

GradientAt = Literal["x_t", "mean"]


@dataclass(frozen=True)
class ClassifierGuidance(Guidance):
    """mean + scale Sigma grad log p(y | x) of an ancestral step, eps - sigma scale grad log p(y | x_t) of a DDIM step.

    log_prob:    log p(y | x_t) of each row.
    scale:       1 gives the conditional distribution if the classifier is exact; 0 disables it without calling it.
    gradient_at: where an ancestral step takes the gradient. `x_t`: at x and its level, as in the released code.
                 `mean`: at the posterior mean, as in ADM's derivation (section 4.1: eq. 4 expands log p(y | x_{t-1})
                 about the mean). The mean is an x of the next level, so the classifier is evaluated at that level; the
                 last step's next level is clean, where classifiers were not trained, so the step's own level is used.
                 In a DDIM step (ADM, Algorithm 2) the score is always that of x_t.
    interval:    the noise levels at which guidance acts, None for all. If a table ends in nearly pure noise (the cosine
                 schedule, at sigma / alpha = 2e4), there is nothing to classify, and with few DDIM steps the error of
                 the gradient there is amplified by the ratio of two alphas; [0, 10] excludes that range.

    Raises ValueError if the interval is empty.
    """

    log_prob: LogProb
    scale: float = 1.0
    gradient_at: GradientAt = "x_t"
    interval: Interval | None = None

    def __post_init__(self) -> None:
        check_interval(self.interval)

    def shift_mean(self, mean: Tensor, variance: Tensor, x: Tensor, step: StepContext) -> Tensor:
        """Returns mean + scale Sigma g; ADM, Algorithm 1."""
        if not self._acts_at(step):
            return mean
        if self.gradient_at == "x_t":
            gradient = self._gradient(x, step.level)
        else:
            gradient = self._gradient(mean, step.level if step.next_level.timestep is None else step.next_level)
        return mean + self.scale * variance * gradient

    def shift_eps(self, eps: Tensor, x: Tensor, step: StepContext) -> Tensor:
        """Returns eps - sigma scale g; ADM, Algorithm 2."""
        if not self._acts_at(step):
            return eps
        return eps - (self.scale * step.level.sigma) * self._gradient(x, step.level)

    def _acts_at(self, step: StepContext) -> bool:
        return self.scale != 0.0 and is_within(self.interval, step.level)

    def _gradient(self, x: Tensor, level: NoiseLevel) -> Tensor:
        # Samplers run without gradients; a clone created outside inference mode can have one nevertheless.
        with torch.inference_mode(False), torch.enable_grad():
            at = x.detach().clone().requires_grad_()
            log_prob = self.log_prob(at, level)
            assert log_prob.shape == (len(x),), f"log_prob must give one number per row, not {tuple(log_prob.shape)}"
            (gradient,) = torch.autograd.grad(log_prob.sum(), at)
        return gradient
