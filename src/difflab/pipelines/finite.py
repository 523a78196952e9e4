"""Detects samples that are not finite, and the step at which they became so, without synchronizing at every step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from difflab.config.guidance import GuidanceBase
from difflab.diffusion.guidance.base import guidance_of
from difflab.diffusion.thresholding import Threshold
from difflab.errors import UserError
from difflab.types import Denoised, Denoiser, StepContext

SHOWN = 8


class NonFiniteSamplesError(UserError):
    """Some samples of a batch are or became NaN or infinite.

    why:   which samples, where and what to do about it, without a stage.
    steps: for each sample of the batch, the first step (from 1) after which it was not finite; 0 for a finite one.
    drawn: float32 [B, C, H, W] of the whole batch, with zeros in place of the bad ones.
    """

    def __init__(self, why: str, steps: Sequence[int], drawn: Tensor, stage: str | None = None) -> None:
        super().__init__(why if stage is None else f"pipeline.stages.{stage}: {why}")
        self.why, self.steps, self.drawn = why, list(steps), drawn

    def in_stage(self, stage: str) -> NonFiniteSamplesError:
        """The same error, attributed to a stage of a cascade."""
        return NonFiniteSamplesError(self.why, self.steps, self.drawn, stage)


class FiniteWatch:
    """Watches one sampling run: wrap its threshold and denoiser with `threshold` and `denoiser`, then `check` x.

    The input and the prediction of every step, before clipping hides an infinity, leave a sum per sample on the device,
    which is NaN or infinite if any value is; the sums are read once, at the end.
    """

    def __init__(self, threshold: Threshold | None) -> None:
        self._inner = threshold
        self._step = 0
        self._steps: list[int] = []
        self._sums: list[Tensor] = []

    @property
    def threshold(self) -> Threshold | None:
        """The threshold, which inspects x0 before it is changed; None if there is none."""
        return None if self._inner is None else self._thresholded

    def denoiser(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser, which reports every call to the watch."""
        return _Watched(self, denoiser)

    def predicted(self, denoiser: Denoiser, x: Tensor, step: StepContext) -> Denoised:
        """The prediction of `denoiser`, with x and the prediction recorded."""
        # The input of a step is the output of the step before it.
        self._note(self._step, x)
        self._step = step.index
        denoised = denoiser(x, step)
        if self._inner is None:
            self._note(step.index, denoised.x0)
        return denoised

    def first_bad_steps(self, x: Tensor) -> list[int] | None:
        """For each sample the first step (from 1) after which it was not finite, or 0; None if all are finite.

        x: [B, ...], the output of the sampler.
        """
        self._note(self._step, x)
        fine = torch.isfinite(torch.stack(self._sums))
        if bool(fine.all()):
            return None
        columns = fine.T.tolist()
        return [next((step + 1 for step, good in zip(self._steps, column) if not good), 0) for column in columns]

    def _thresholded(self, x0: Tensor) -> Tensor:
        assert self._inner is not None, "handed out only if there is one"
        self._note(self._step, x0)
        return self._inner(x0)

    def _note(self, step: int, values: Tensor) -> None:
        self._steps.append(step)
        self._sums.append(values.flatten(1).sum(1, dtype=torch.float32))


class _Watched:
    """guidance: read by the samplers that shift the mean themselves."""

    def __init__(self, watch: FiniteWatch, denoiser: Denoiser) -> None:
        self._watch, self._denoiser = watch, denoiser
        self.guidance = guidance_of(denoiser)

    def __call__(self, x: Tensor, step: StepContext) -> Denoised:
        return self._watch.predicted(self._denoiser, x, step)


def refuse_non_finite(
    watch: FiniteWatch,
    x: Tensor,
    *,
    indices: Sequence[int],
    n_steps: int,
    parts: Iterable[tuple[str, nn.Module]],
    guidance: GuidanceBase,
    autocast: torch.dtype | None,
) -> None:
    """Raises NonFiniteSamplesError unless x [B, ...] and everything it was computed from are finite.

    indices: the indices of the samples. parts: the networks involved, by name.
    """
    steps = watch.first_bad_steps(x)
    if steps is None:
        return
    rows = [row for row, step in enumerate(steps) if step]
    first = min(steps[row] for row in rows)
    broken = first_broken_weight(parts)
    if broken is not None:
        fix = f"the weights themselves are not finite ({broken}): take another checkpoint"
    else:
        fix = _advice(guidance, autocast)
    drawn = torch.where(torch.isfinite(x), x, 0.0)
    drawn[rows] = 0.0
    why = f"{named([indices[row] for row in rows])} not finite from step {first} of {n_steps} on: {fix}"
    raise NonFiniteSamplesError(why, steps, drawn)


def refuse_undecodable(images: Tensor, indices: Sequence[int], parts: Iterable[tuple[str, nn.Module]]) -> None:
    """Raises NonFiniteSamplesError for images [B, C, H, W] of finite latents that are not finite themselves."""
    fine = torch.isfinite(images.flatten(1).sum(1, dtype=torch.float32))
    if bool(fine.all()):
        return
    rows = (~fine).nonzero().flatten().tolist()
    broken = first_broken_weight(parts)
    fix = "another first stage is needed" if broken is None else f"its weights are not finite ({broken})"
    drawn = torch.where(torch.isfinite(images), images, 0.0)
    drawn[rows] = 0.0
    why = f"{named([indices[row] for row in rows])} not finite once decoded by the first stage: {fix}"
    raise NonFiniteSamplesError(why, (~fine).int().tolist(), drawn)


def first_broken_weight(parts: Iterable[tuple[str, nn.Module]]) -> str | None:
    """The name of the first parameter or buffer that is not finite."""
    for name, module in parts:
        for key, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                return f"{name}.{key}"
    return None


def named(indices: Sequence[int], what: str = "sample") -> str:
    """`sample 3 is`, `samples 3, 5, 8 are`, `samples 0, 1, ... (64 of them) are`."""
    if len(indices) == 1:
        return f"{what} {indices[0]} is"
    shown = ", ".join(map(str, indices[:SHOWN]))
    return f"{what}s {shown} are" if len(indices) <= SHOWN else f"{what}s {shown}, ... ({len(indices)} of them) are"


def _advice(guidance: GuidanceBase, autocast: torch.dtype | None) -> str:
    if guidance.acts:
        return "lower the scale of the guidance" + ("" if autocast is None else ", or set precision=32-true")
    if autocast is not None:
        return "set precision=32-true, take more sampler.steps, or another checkpoint"
    return "take more sampler.steps, another sampler, or another checkpoint"
