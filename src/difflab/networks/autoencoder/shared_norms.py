"""Norms whose statistics are those of a whole image, though they see its tiles one by one."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import torch
from torch import Tensor, nn


class SharedNorms:
    """The GroupNorms in a module; as a context, they normalise by given statistics instead of their input's own.

    Until those that layers need have statistics: run the layers on every part of the image, then `share`, which gives
    statistics to the norm that comes next.
    """

    def __init__(self, module: nn.Module) -> None:
        self._norms = [_SharedNorm(norm) for norm in module.modules() if isinstance(norm, nn.GroupNorm)]

    def output(self, run: Callable[[], Tensor], inner: Callable[[Tensor], Tensor]) -> Tensor | None:
        """run() for one part of the image; None if it met a norm without statistics, for which it was measured.

        inner: features of the part with a border -> those of the part alone.
        """
        for norm in self._norms:
            norm.inner = inner
        try:
            return run()
        except _MeasuredError:
            return None

    def share(self) -> None:
        """Makes statistics of the whole image of those of the parts that were measured."""
        for norm in self._norms:
            norm.share()

    def __enter__(self) -> SharedNorms:
        for norm in self._norms:
            # Found before the method of the class, until it is deleted.
            norm.norm.__dict__["forward"] = norm.forward
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for norm in self._norms:
            del norm.norm.__dict__["forward"]


class _MeasuredError(Exception):
    """Nothing that follows is needed."""


class _SharedNorm:
    """statistics: scale and shift [B, C, 1, 1] of the normalised and weighted input; None before they are known."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        self.norm = norm
        self.inner: Callable[[Tensor], Tensor] = lambda h: h
        self.statistics: tuple[Tensor, Tensor] | None = None
        self._parts: list[tuple[int, Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.statistics is not None:
            scale, shift = self.statistics
            return torch.addcmul(shift, x, scale).to(x.dtype)
        part = self.inner(x)
        groups = part.reshape(len(part), self.norm.num_groups, -1).float()
        variance, mean = torch.var_mean(groups, dim=2, correction=0)
        self._parts.append((groups.shape[2], mean.double(), variance.double()))
        raise _MeasuredError

    def share(self) -> None:
        """The mean and the variance of all parts, of their own means and variances (Chan et al. 1979)."""
        if not self._parts:
            return
        norm = self.norm
        counts, means, variances = zip(*self._parts, strict=True)
        self._parts.clear()
        shares = torch.tensor(counts, dtype=torch.float64, device=means[0].device)[:, None, None] / sum(counts)
        mean = (shares * torch.stack(means)).sum(dim=0)
        variance = (shares * (torch.stack(variances) + (torch.stack(means) - mean).square())).sum(dim=0)
        each = norm.num_channels // norm.num_groups
        scale = (variance + norm.eps).rsqrt().repeat_interleave(each, dim=1) * norm.weight
        shift = norm.bias - mean.repeat_interleave(each, dim=1) * scale
        dtype = norm.weight.dtype
        self.statistics = scale[:, :, None, None].to(dtype), shift[:, :, None, None].to(dtype)
