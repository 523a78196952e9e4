"""The interface of guidance: four methods around the prediction of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from difflab.diffusion.predictions import Eps, Prediction
from difflab.types import Conditioning, Denoised, Denoiser, NoiseLevel, StepContext

LogProb = Callable[[Tensor, NoiseLevel], Tensor]
"""(x [B, ...], its level) -> [B]: log p(y | x) of the requested class of each row, differentiable in x.

Guidance computes its gradient in inference mode too; the function must clone tensors that were created there."""

Interval = tuple[float, float]
"""(low, high]: guidance acts where low < sigma / alpha <= high, the noise level of EDM (Kynkaanniemi et al. 2024)."""


def check_interval(interval: Interval | None) -> None:
    """Raises ValueError if the interval is empty or reaches below 0; None is everywhere."""
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise ValueError(f"interval={list(interval)} must be [low, high] with 0 <= low < high")


def is_within(interval: Interval | None, level: NoiseLevel) -> bool:
    """Whether guidance acts at a level."""
    return interval is None or interval[0] < level.edm_sigma <= interval[1]


@dataclass(frozen=True)
class NetworkInput:
    """One network call: x [B, ...] and its conditioning.

    denoiser: called instead of the denoiser's own network (a reference network); it has its own conditioning.
    """

    x: Tensor
    conditioning: Conditioning | None = None
    denoiser: Denoiser | None = None


@dataclass(frozen=True)
class GuidanceParts:
    """What guidance needs from trained models for one batch of B samples; None for parts that do not exist.

    null:       the null condition that replaces a dropped one, B rows (classifier-free guidance).
    prediction: what the network regresses; guidance is rescaled in that space.
    guides:     the additional models, applied to these samples, by their names in the configuration:
                `reference`, a `Denoiser` of lower quality, or without the condition (autoguidance);
                `classifier`, the `LogProb` of a noisy classifier; and those of plugins.
    """

    null: Conditioning | None = None
    prediction: Prediction = field(default_factory=Eps)
    guides: Mapping[str, Any] = field(default_factory=dict)


class Guidance:
    """Base class in which every method does nothing. Subclasses override what they need; several compose in order.

    Within a step: prepare -> network -> combine -> threshold -> known region -> posterior -> shift.
    """

    def prepare(self, x: Tensor, conditioning: Conditioning | None, step: StepContext) -> list[NetworkInput]:
        """Returns the inputs at which to evaluate the network."""
        return [NetworkInput(x, conditioning)]

    def combine(self, predictions: Sequence[Denoised], step: StepContext) -> Denoised:
        """Combines the predictions for the inputs of `prepare`, in the same order, into one."""
        return predictions[0]

    def shift_mean(self, mean: Tensor, variance: Tensor, x: Tensor, step: StepContext) -> Tensor:
        """Shifts the posterior mean of an ancestral step from x (classifier guidance: ADM, Algorithm 1)."""
        return mean

    def shift_eps(self, eps: Tensor, x: Tensor, step: StepContext) -> Tensor:
        """Shifts the eps of a DDIM step from x (classifier guidance: ADM, Algorithm 2); x0 then follows it."""
        return eps


def shift_mean(denoiser: Denoiser, mean: Tensor, variance: Tensor, x: Tensor, step: StepContext) -> Tensor:
    """Returns `mean` after the shifts of all guidance attached to the denoiser."""
    for guidance in guidance_of(denoiser):
        mean = guidance.shift_mean(mean, variance, x, step)
    return mean


def shift_eps(denoiser: Denoiser, eps: Tensor, x: Tensor, step: StepContext) -> Tensor:
    """Returns `eps` after the shifts of all guidance attached to the denoiser."""
    for guidance in guidance_of(denoiser):
        eps = guidance.shift_eps(eps, x, step)
    return eps


def prepare_all(
    guidance: Sequence[Guidance], x: Tensor, conditioning: Conditioning | None, step: StepContext
) -> tuple[list[NetworkInput], list[list[int]]]:
    """Returns the inputs of all guidance together, and how many each guidance made from each input it received.

    Inputs for another denoiser belong to that denoiser: no further guidance sees them, and their count is 0.
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
    """Combines the predictions of every guidance, the last one first, into a single prediction."""
    left = list(predictions)
    for part, sizes in zip(reversed(guidance), reversed(counts), strict=True):
        rest = iter(left)
        left = [part.combine([next(rest) for _ in range(size)], step) if size else next(rest) for size in sizes]
    assert len(left) == 1, "every guidance combines all of its predictions"
    return left[0]


def guidance_of(denoiser: Denoiser) -> Sequence[Guidance]:
    """Returns the guidance attached to a denoiser, whose shifts the sampler applies."""
    # A sampler accepts any callable as its denoiser; only ours has guidance.
    return getattr(denoiser, "guidance", ())
