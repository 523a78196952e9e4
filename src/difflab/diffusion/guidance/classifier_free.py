"""Classifier-free guidance (Ho & Salimans 2022) and autoguidance (Karras et al. 2024)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from difflab.diffusion.guidance.base import Guidance, Interval, NetworkInput, check_interval, is_within
from difflab.diffusion.predictions import Eps, Prediction, PreviousDenoised
from difflab.types import Conditioning, Denoised, Denoiser, StepContext

FLAT = 16.0  # in spacings of floating point at the largest value: a smaller standard deviation is rounding


@dataclass(frozen=True)
class ClassifierFree(Guidance):
    """eps = eps_weak + scale (eps_cond - eps_weak), and likewise x0; a learned variance is the conditional one (GLIDE).

    The weak prediction is the network's own without its condition, or that of a reference network. At scale 1 and
    outside the interval the network is called once, with the condition. At scale 0, without rescale and channels, only
    the weak prediction is computed, and the variance is its own.

    scale:      1 is the conditional prediction; the CFG paper's weight is w = scale - 1.
    null:       the null condition that replaces the condition, with the rows of x.
    reference:  another denoiser, on the same process, used instead of `null` (autoguidance).
    interval:   the noise levels at which guidance acts, None for all; elsewhere the conditional prediction is used.
    rescale:    phi in [0, 1], how far the standard deviation of the guided prediction is rescaled to that of the
                conditional one, per item, in the space that the network predicts (Lin et al. 2023, section 3.4). An
                item whose guided prediction is constant up to rounding is not rescaled.
    channels:   only the first `channels` channels are guided, the others stay conditional (DiT guides 3); None for all.
    prediction: the space that the network predicts; the mean of x_{t-1} (`prev`) cannot be rescaled.

    Raises ValueError if scale is not 1 and there is neither `null` nor `reference`, or if an option is out of range.
    """

    scale: float
    null: Conditioning | None = None
    reference: Denoiser | None = None
    interval: Interval | None = None
    rescale: float = 0.0
    channels: int | None = None
    prediction: Prediction = field(default_factory=Eps)

    def __post_init__(self) -> None:
        if self.null is not None and self.reference is not None:
            raise ValueError(
                "classifier-free guidance extrapolates away from the null condition or from a reference, not from both"
            )
        if self.scale != 1.0 and self.null is None and self.reference is None:
            raise ValueError(f"classifier-free guidance of scale {self.scale:g} needs a null condition or a reference")
        check_interval(self.interval)
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale={self.rescale:g} must be in [0, 1]")
        if self.rescale > 0 and self.prediction.rows_only:
            raise ValueError("rescale needs predictions of eps, x0 or v, not of the mean of x_{t-1}: set rescale=0")
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"channels={self.channels} must be 1 or more, or None for all")

    def prepare(self, x: Tensor, conditioning: Conditioning | None, step: StepContext) -> list[NetworkInput]:
        """Returns [conditional, weak], or only the one that is needed."""
        conditional = NetworkInput(x, conditioning)
        if self.scale == 1.0 or not self._acts_at(step):
            return [conditional]
        weak = NetworkInput(x, self.null) if self.reference is None else NetworkInput(x, denoiser=self.reference)
        if self.scale == 0.0 and self.rescale == 0.0 and self.channels is None:
            return [weak]
        return [conditional, weak]

    def combine(self, predictions: Sequence[Denoised], step: StepContext) -> Denoised:
        """Returns weak + scale (conditional - weak), rescaled, in the guided channels."""
        if len(predictions) == 1:
            return predictions[0]
        conditional, weak = predictions
        if self.channels is None:
            return self._guide(conditional, weak, step)
        if self.channels > conditional.x0.shape[1]:
            raise ValueError(f"channels={self.channels} is more than the {conditional.x0.shape[1]} channels of x")
        first, rest = slice(None, self.channels), slice(self.channels, None)
        guided = self._guide(_channels(conditional, first), _channels(weak, first), step)
        return _views(lambda parts: torch.cat(parts, dim=1), guided, _channels(conditional, rest))

    def _acts_at(self, step: StepContext) -> bool:
        return is_within(self.interval, step.level)

    def _guide(self, conditional: Denoised, weak: Denoised, step: StepContext) -> Denoised:
        guided = _views(lambda pair: pair[1] + self.scale * (pair[0] - pair[1]), conditional, weak)
        return guided if self.rescale == 0.0 else self._rescale(guided, conditional, step)

    def _rescale(self, guided: Denoised, conditional: Denoised, step: StepContext) -> Denoised:
        """Lin et al. 2023, eq. 15 and 16; both views change together so that alpha x0 + sigma eps is still x."""
        alpha, sigma = step.level.alpha, step.level.sigma
        space = self.prediction.guided_as
        before = space.target(guided.x0, guided.eps, alpha, sigma)
        spread = _std(before)
        flat = spread <= FLAT * torch.finfo(before.dtype).eps * _largest(before)
        ratio = _std(space.target(conditional.x0, conditional.eps, alpha, sigma)) / torch.where(flat, 1.0, spread)
        change = before * torch.where(flat, 0.0, self.rescale * (ratio - 1.0))
        views = space.views(alpha, sigma)
        return dataclasses.replace(
            guided, x0=guided.x0 + views.x0_out * change, eps=guided.eps + views.eps_out * change
        )


def _views(fn: Callable[[list[Tensor]], Tensor], *predictions: Denoised) -> Denoised:
    """Applies `fn` to each view of the predictions; the variance is that of the first."""
    first = predictions[0]
    x0, eps = fn([one.x0 for one in predictions]), fn([one.eps for one in predictions])
    previous = [one.previous for one in predictions if isinstance(one, PreviousDenoised) and one.previous is not None]
    if len(previous) < len(predictions):
        # A reference network may regress something else; the sampler then computes the mean of x_{t-1} from x0.
        return Denoised(x0, eps, first.log_variance)
    return PreviousDenoised(x0, eps, first.log_variance, previous=fn(previous))


def _channels(prediction: Denoised, which: slice) -> Denoised:
    """Selects channels of each view."""
    return _views(lambda view: view[0][:, which], prediction)


def _std(values: Tensor) -> Tensor:
    """[B, ...] -> the standard deviation of each item, broadcastable; 0 for a single value."""
    single = values[0].numel() < 2
    return values.std(dim=tuple(range(1, values.ndim)), keepdim=True, correction=0 if single else 1)


def _largest(values: Tensor) -> Tensor:
    """[B, ...] -> the largest magnitude of each item, broadcastable."""
    return values.abs().amax(dim=tuple(range(1, values.ndim)), keepdim=True)
