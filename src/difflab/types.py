"""The containers that every part shares. Depends on torch only: no part of difflab is imported here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Batch = dict[str, Any]
"""Samples, field by field. `index` int64 [B] is always present: the number of each sample in its data set, or among the
samples being generated.

The data pipeline adds `image` uint8 [B, C, H, W], `position` int64 [B] (place in the global batch), `weight` float32
[B] (0 marks padding), `key` list[str], and any requested fields: `label` int64 [B], `caption` list[str], `json`
list[dict], `embedding` float32 [B, ...], `segmentation` uint8 [B, H, W] (the class of each pixel), and per sample a
list of `boxes` ([x0, y0, x1, y1] within 0..1) and of `phrases`. Sampling requests, and the stages of a pipeline, may
add any fields that conditioners read; their images are uint8, or floats in [-1, 1]."""

_MASKS = {"tokens": "token_mask", "grounding": "grounding_mask"}
"""The fields of `Conditioning` that may have a mask, and the name of that mask."""


@dataclass(frozen=True)
class Conditioning:
    """A network's inputs besides x and time. Every field is optional; B is the batch size.

    vector:         [B, D] added to the time embedding (class embeddings, pooled text).
    pooled:         [B, D] a pooled embedding that the network projects itself.
    tokens:         [B, L, D] for attention; token_mask [B, L] is True for real tokens.
    concat:         [B, C, H, W] concatenated to the network input along channels (low-resolution image, mask).
    aug_level:      [B] strength of the conditioning augmentation.
    grounding:      [B, N, D] grounding tokens; grounding_mask [B, N] is True for real boxes.
    """

    vector: Tensor | None = None
    pooled: Tensor | None = None
    tokens: Tensor | None = None
    token_mask: Tensor | None = None
    concat: Tensor | None = None
    aug_level: Tensor | None = None
    grounding: Tensor | None = None
    grounding_mask: Tensor | None = None

    def fields(self) -> dict[str, Tensor]:
        """Returns the fields that are set, by name."""
        named = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: value for name, value in named if value is not None}

    def map(self, fn: Callable[[Tensor], Tensor]) -> Conditioning:
        """Applies `fn` to every field that is set."""
        return Conditioning(**{name: fn(value) for name, value in self.fields().items()})

    def to(self, *args: Any, **kwargs: Any) -> Conditioning:
        """Moves or casts every field, like `Tensor.to`; masks keep their dtype."""
        return self.map(
            lambda t: t.to(*args, **kwargs) if t.is_floating_point() else t.to(device=_device_of(args, kwargs))
        )

    def __getitem__(self, rows: Any) -> Conditioning:
        """Returns the conditioning of the given rows of the batch."""
        return self.map(lambda t: t[rows])

    def merge(self, other: Conditioning) -> Conditioning:
        """Combines the fields of both: `vector` fields are added, tokens, grounding and concat are concatenated (tokens
        without a mask are all real). Raises ValueError if any other field is set in both."""
        masks = {mask for field, mask in _MASKS.items() if self._masked(field) or other._masked(field)}
        merged = self._with_masks(masks).fields()
        for name, value in other._with_masks(masks).fields().items():
            if name not in merged:
                merged[name] = value
            elif name == "vector":
                merged[name] = merged[name] + value
            elif name in ("tokens", "token_mask", "concat", "grounding", "grounding_mask"):
                merged[name] = torch.cat([merged[name], value], dim=1)
            else:
                raise ValueError(f"two conditioners both set the field {name!r}; keep one of them")
        return Conditioning(**merged)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Concatenates along the batch. All parts must set the same fields; a missing mask counts as all True."""
        masks = {mask for field, mask in _MASKS.items() if any(part._masked(field) for part in parts)}
        parts = [part._with_masks(masks) for part in parts]
        names = [tuple(part.fields()) for part in parts]
        if any(n != names[0] for n in names):
            raise ValueError(f"cannot concatenate conditionings with different fields: {names}")
        return Conditioning(**{name: torch.cat([part.fields()[name] for part in parts]) for name in names[0]})

    def _masked(self, field: str) -> bool:
        return getattr(self, _MASKS[field]) is not None

    def _with_masks(self, masks: set[str]) -> Conditioning:
        """Adds a mask of ones for each field in `masks` that lacks one."""
        ones: dict[str, Tensor] = {}
        for field, mask in _MASKS.items():
            value = getattr(self, field)
            if mask in masks and value is not None and not self._masked(field):
                ones[mask] = torch.ones(value.shape[:2], dtype=torch.bool, device=value.device)
        return dataclasses.replace(self, **ones) if ones else self


def _device_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device | None:
    candidates = [*args, *kwargs.values()]
    for value in candidates:
        if isinstance(value, (str, torch.device)):
            return torch.device(value)
        if isinstance(value, Tensor):
            return value.device
    return None


@dataclass(frozen=True)
class NoiseLevel:
    """One point of the forward process, x = alpha * x0 + sigma * eps, in float64 and the same for a whole batch.

    timestep: position on the training schedule (an index of the table the network was trained on, fractional between
    two entries), or None if the level has no timestep. The clean end has alpha = 1, sigma = 0.
    """

    alpha: float
    sigma: float
    timestep: float | None = None

    @property
    def edm_sigma(self) -> float:
        """sigma / alpha, the sigma of EDM and k-diffusion; infinite if alpha is 0."""
        return self.sigma / self.alpha if self.alpha > 0.0 else math.inf

    @property
    def log_snr(self) -> float:
        """log(alpha^2 / sigma^2); infinite at the clean end."""
        if self.sigma == 0.0:
            return math.inf
        return -math.inf if self.alpha == 0.0 else 2.0 * (math.log(self.alpha) - math.log(self.sigma))


@dataclass(frozen=True)
class StepContext:
    """The current step of a sampler: step `index` of `n_steps` (0 is the first, at the highest noise level), from
    `level` to `next_level` (the clean end, sigma = 0, at the last step).

    table_index: the row of the sampler's own (respaced) process at `level`, or None between rows.
    """

    index: int
    n_steps: int
    level: NoiseLevel
    next_level: NoiseLevel
    table_index: int | None = None


@dataclass(frozen=True)
class Denoised:
    """A denoiser's prediction at one level: x0 and eps are two views of one prediction, both [B, ...] like x.

    log_variance: [B, ...] log of the reverse variance if the network learns it, else None.
    """

    x0: Tensor
    eps: Tensor
    log_variance: Tensor | None = None


class Denoiser(Protocol):
    """The only interface between samplers and networks."""

    def __call__(self, x: Tensor, step: StepContext) -> Denoised: ...


class Network(Protocol):
    """Every network: x [B, C, H, W] (or [B, D]), time float32 [B] as its process defines it, and its conditioning."""

    def __call__(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor: ...


StepHook = Callable[[StepContext, Tensor, Denoised], Tensor | None]
"""Called after every step with the step, the new x and the prediction; may return a modified x."""
