"""Classes that are Gaussian mixtures: every score, posterior and guided field is known in closed form, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.guidance.base import Guidance, LogProb
from difflab.diffusion.guidance.classifier import ClassifierGuidance, GradientAt
from difflab.diffusion.guidance.classifier_free import ClassifierFree
from difflab.diffusion.process import GaussianProcess
from difflab.types import Conditioning, Network, NoiseLevel

ANY = -1.0


@dataclass(frozen=True)
class Part:
    """One Gaussian of the data: its class, its share of all data, its mean [D] and its variance (isotropic)."""

    label: int
    share: float
    mean: tuple[float, ...]
    variance: float


class Classes:
    """p(x0, y) = sum of the parts. As a network it predicts eps exactly, told a class or ANY."""

    def __init__(self, *parts: Part) -> None:
        self.labels = torch.tensor([float(part.label) for part in parts])
        self.log_shares = torch.tensor([part.share for part in parts], dtype=torch.float64).log()
        self.means = torch.tensor([part.mean for part in parts], dtype=torch.float64)
        self.variances = torch.tensor([part.variance for part in parts], dtype=torch.float64)

    def score(self, x: Tensor, level: NoiseLevel, labels: Tensor | float) -> Tensor:
        """grad log p(x_t | y) [B, D], or of the marginal where the label ([B], or one for all) is ANY."""
        away, v = x[:, None] - level.alpha * self.means, self._variances(level)
        shares = torch.softmax(self._log_joint(away, v, labels), dim=1)
        return -(away * (shares / v)[:, :, None]).sum(dim=1)

    def log_prob(self, label: int) -> LogProb:
        """log p(y = label | x_t), for classifier guidance to differentiate."""

        def log_prob(x: Tensor, level: NoiseLevel) -> Tensor:
            away, v = x[:, None] - level.alpha * self.means, self._variances(level)
            return self._log_joint(away, v, label).logsumexp(1) - self._log_joint(away, v, ANY).logsumexp(1)

        return log_prob

    def network(self, process: GaussianProcess) -> Network:
        """eps of x at the rows of the training process, for the class in `Conditioning.vector`."""

        def network(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
            assert conditioning is not None
            assert conditioning.vector is not None
            level = process.base.level(int(time[0]))
            return -level.sigma * self.score(x, level, conditioning.vector[:, 0])

        return network

    def denoiser(
        self, process: GaussianProcess, n: int, told: float, guidance: Sequence[Guidance] = ()
    ) -> NetworkDenoiser:
        """The exact denoiser for n samples that are all told the same."""
        return NetworkDenoiser(self.network(process), process, conditioning(n, told), guidance=guidance)

    def _variances(self, level: NoiseLevel) -> Tensor:
        return level.alpha**2 * self.variances + level.sigma**2

    def _log_joint(self, away: Tensor, v: Tensor, labels: Tensor | float) -> Tensor:
        dims = away.shape[2]
        logs = self.log_shares - away.square().sum(dim=2) / (2 * v) - dims / 2 * torch.log(v)
        labels = torch.as_tensor(labels)[..., None]
        return logs.masked_fill((labels != ANY) & (labels != self.labels), float("-inf"))


class Still:
    """No noise: what is left of an ancestral step is its mean."""

    def randn_like(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def conditioning(n: int, told: float) -> Conditioning:
    return Conditioning(vector=torch.full((n, 1), float(told), dtype=torch.float64))


def classifier_free(scale: float, n: int) -> ClassifierFree:
    return ClassifierFree(scale, null=conditioning(n, ANY))


def by_classifier(classes: Classes, label: int, scale: float, at: GradientAt = "x_t") -> ClassifierGuidance:
    return ClassifierGuidance(classes.log_prob(label), scale, at)


def guided_score(classes: Classes, label: int, scale: float) -> Callable[[Tensor, NoiseLevel], Tensor]:
    """score + scale (score of the class - score), the field that every guided sampler follows."""

    def score(x: Tensor, level: NoiseLevel) -> Tensor:
        every = classes.score(x, level, ANY)
        return every + scale * (classes.score(x, level, label) - every)

    return score


def rk4(field: Callable[[Tensor, float], Tensor], x: Tensor, start: float, stop: float, steps: int) -> Tensor:
    """x at `stop` of dx/ds = field(x, s) by the classical Runge-Kutta method."""
    h = (stop - start) / steps
    for i in range(steps):
        s = start + i * h
        k1 = field(x, s)
        k2 = field(x + h / 2 * k1, s + h / 2)
        k3 = field(x + h / 2 * k2, s + h / 2)
        k4 = field(x + h * k3, s + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x
