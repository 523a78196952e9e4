"""Running means between two log lines, kept on the device so that no step synchronizes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

QUARTILES = 4


class MeanWindow:
    """Accumulates weighted sums of per-sample values.

    names: of the values that every `add` receives.
    groups: name suffixes of additional means, each over a part of the samples; see `group_of`.
    """

    groups: tuple[str, ...] = ()

    def __init__(self, names: Sequence[str] = ("loss",)) -> None:
        self.names = tuple(names)
        self._sums: Tensor | None = None

    def group_of(self, where: Tensor) -> Tensor:
        """The index in `groups` of each sample, int64 [B]; where: the task's position of each sample, [B]."""
        raise NotImplementedError

    def add(self, values: Mapping[str, Tensor], where: Tensor | None, weight: Tensor) -> None:
        """values float [B] by name; weight [B] is the weight of each sample, 0 excludes it whatever its value."""
        self._sums = self.sums().to(weight.device)
        if self.groups:
            assert where is not None, "the task gives the position of each sample"
            group = self.group_of(where)
        else:
            group = torch.zeros_like(weight, dtype=torch.int64)
        weight = weight.double()
        for row, name in enumerate(self.names):
            # Not a plain product: 0 times a non-finite value is not 0.
            weighted = (values[name].detach().double() * weight).where(weight > 0, 0.0)
            self._sums[row].index_add_(0, group, weighted)
        self._sums[-1].index_add_(0, group, weight)

    def sums(self) -> Tensor:
        """The sums since the last `pop`, float64 [len(names) + 1, groups]: one row per value, then the weights."""
        columns = max(1, len(self.groups))
        return torch.zeros(len(self.names) + 1, columns, dtype=torch.float64) if self._sums is None else self._sums

    def pop(self) -> Tensor:
        """Returns the sums and resets them."""
        sums, self._sums = self.sums(), None
        return sums

    def restore(self, sums: Tensor) -> None:
        """Continues from the `sums` of another window."""
        self._sums = sums.clone()

    def means(self, sums: Tensor, prefix: str) -> dict[str, float]:
        """`<prefix>/<name>` and `<prefix>/<name>_<group>` of the summed windows; groups without samples are omitted."""
        *values, counts = sums.tolist()
        if not sum(counts):
            return {}
        means: dict[str, float] = {}
        for name, row in zip(self.names, values, strict=True):
            means[f"{prefix}/{name}"] = sum(row) / sum(counts)
            means |= {f"{prefix}/{name}_{g}": row[i] / counts[i] for i, g in enumerate(self.groups) if counts[i]}
        return means


class QuartileWindow(MeanWindow):
    """Means over all samples and by quartile of the timestep, as improved-diffusion logs them; `where` is the timestep.

    time_span: training times lie in [0, time_span).
    """

    groups = tuple(f"q{q}" for q in range(QUARTILES))

    def __init__(self, time_span: float, names: Sequence[str] = ("loss",)) -> None:
        super().__init__(names)
        self.time_span = time_span

    def group_of(self, where: Tensor) -> Tensor:
        # Times between the clean image and the first table row are below 0.
        return (where * QUARTILES).div(self.time_span, rounding_mode="floor").long().clamp(min=0)
