"""Guidance: what may be done around a prediction, in four verbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from difflab.diffusion.predictions import Eps, Prediction
from difflab.types import Conditioning, Denoised, Denoiser, NoiseLevel, StepContext

LogProb = Callable[[Tensor, NoiseLevel], Tensor]
"""(x [B, ...], its level) -> [B]: log p(y | x) of the class asked for of each row, differentiable in x.

Guidance asks for its gradient from within inference mode too; tensors made there have to be cloned by the function."""

Interval = tuple[float, float]
"""(low, high]: guidance acts where low < sigma / alpha <= high, the noise level of EDM (Kynkaanniemi et al. 2024)."""


def check_interval(interval: Interval | None) -> None:
    """Raise ValueError for an interval that is empty or reaches below 0; None is everywhere."""
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise ValueError(f"interval={list(interval)} must be [low, high] with 0 <= low < high")


def is_within(interval: Interval | None, level: NoiseLevel) -> bool:
    """Whether guidance acts at a level."""
    return interval is None or interval[0] < level.edm_sigma <= interval[1]


@dataclass(frozen=True)
class NetworkInput:
    """One question: x [B, ...] and what is told besides.

    denoiser: asked instead of the denoiser's own network (a reference network); it has a conditioning of its own.
    """

    x: Tensor
    conditioning: Conditioning | None = None
    denoiser: Denoiser | None = None


@dataclass(frozen=True)
class GuidanceParts:
    """What guidance needs of the trained parts for one batch of B samples; None where there is nothing of the kind.

    null:       what the network is told when its condition is dropped, B rows (classifier-free guidance).
    prediction: what the network regresses; guidance is rescaled there.
    guides:     what the further models that a guidance asks are for these samples, by the names of its configuration:
                `reference`, a `Denoiser` that predicts less well, or without the condition (autoguidance);
                `classifier`, the `LogProb` of a noisy classifier; whatever a plugin's guides make.
    """

    null: Conditioning | None = None
    prediction: Prediction = field(default_factory=Eps)
    guides: Mapping[str, Any] = field(default_factory=dict)


class Guidance:
    """The base: every verb does nothing. A guidance overrides those it needs; several compose in their order.

    Within a step: prepare -> network -> combine -> threshold -> known region -> posterior -> shift.
    """

    def prepare(self, x: Tensor, conditioning: Conditioning | None, step: StepContext) -> list[NetworkInput]:
        """The inputs that predictions are wanted for."""
        return [NetworkInput(x, conditioning)]

    def combine(self, predictions: Sequence[Denoised], step: StepContext) -> Denoised:
        """One prediction of those made for the inputs of `prepare`, in the same order."""
        return predictions[0]

    def shift_mean(self, mean: Tensor, variance: Tensor, x: Tensor, step: StepContext) -> Tensor:
        """The posterior mean of an ancestral step from x, moved (classifier guidance: ADM, Algorithm 1)."""
        return mean

    def shift_eps(self, eps: Tensor, x: Tensor, step: StepContext) -> Tensor:
        """The eps of a DDIM step from x, moved (classifier guidance: ADM, Algorithm 2); x0 then follows it."""
        return eps


def shift_mean(denoiser: Denoiser, mean: Tensor, variance: Tensor, x: Tensor, step: StepContext) -> Tensor:
    """`mean` after the shifts of all guidance that the denoiser carries."""
    for guidance in guidance_of(denoiser):
        mean = guidance.shift_mean(mean, variance, x, step)
    return mean


def shift_eps(denoiser: Denoiser, eps: Tensor, x: Tensor, step: StepContext) -> Tensor:
    """`eps` after the shifts of all guidance that the denoiser carries."""
    for guidance in guidance_of(denoiser):
        eps = guidance.shift_eps(eps, x, step)
    return eps


def prepare_all(
    guidance: Sequence[Guidance], x: Tensor, conditioning: Conditioning | None, step: StepContext
) -> tuple[list[NetworkInput], list[list[int]]]:
    """The inputs that every guidance together asks for, and how many each made of each input it was given.

    An input for another denoiser is that denoiser's own affair: no further guidance sees it, and its count is 0.
    """
    inputs = [NetworkInput(x, conditioning)]
    counts: list[list[int]] = []
    for part in guidance:
        made = [part.prepare(one.x, one.conditioning, step) if one.denoiser is None else [] for one in inputs]
        counts.append([len(some) for some in made])
        inputs = [one for given, some in zip(inputs, made, strict=True) for one in some or [given]]
    return inputs, counts


def combine_all(
    guidance: Sequence[Guidance], predictions: Sequence[Denoised], counts: Sequence[Sequence[int]], step: StepContext
) -> Denoised:
    """The one prediction left when every guidance has combined what came of its inputs, the last one first."""
    left = list(predictions)
    for part, sizes in zip(reversed(guidance), reversed(counts), strict=True):
        rest = iter(left)
        left = [part.combine([next(rest) for _ in range(size)], step) if size else next(rest) for size in sizes]
    assert len(left) == 1, "every guidance combines all of its predictions"
    return left[0]


def guidance_of(denoiser: Denoiser) -> Sequence[Guidance]:
    """The guidance that a denoiser carries, whose shifts are left to the sampler."""
    # A sampler may be given any callable as its denoiser; only ours carries guidance.
    return getattr(denoiser, "guidance", ())
