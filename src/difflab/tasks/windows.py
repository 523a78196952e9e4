"""Running means between two log lines, kept on the device so that no step waits for a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

QUARTILES = 4


class QuartileWindow:
    """Weighted sums of per-sample values, in all and by quartile of the timestep (as improved-diffusion logs them).

    time_span: training times lie in [0, time_span).
    names: of the values that every `add` gives.
    """

    def __init__(self, time_span: float, names: Sequence[str] = ("loss",)) -> None:
        self.time_span = time_span
        self.names = tuple(names)
        self._sums: Tensor | None = None

    def add(self, values: Mapping[str, Tensor], t: Tensor, weight: Tensor) -> None:
        """values float [B] by name, t [B] rows or positions; weight [B] is what each counts, 0 leaves out any value."""
        self._sums = self.sums().to(t.device)
        quartile = (t * QUARTILES).div(self.time_span, rounding_mode="floor").long()
        weight = weight.double()
        for row, name in enumerate(self.names):
            # Not a plain product: 0 times a value that is not finite is not 0.
            weighted = (values[name].detach().double() * weight).where(weight > 0, 0.0)
            self._sums[row].index_add_(0, quartile, weighted)
        self._sums[-1].index_add_(0, quartile, weight)

    def sums(self) -> Tensor:
        """The sums since the last `pop`, float64 [len(names) + 1, 4]: one row of each value, then the weights."""
        return torch.zeros(len(self.names) + 1, QUARTILES, dtype=torch.float64) if self._sums is None else self._sums

    def pop(self) -> Tensor:
        """The sums; then starts anew."""
        sums, self._sums = self.sums(), None
        return sums

    def restore(self, sums: Tensor) -> None:
        """Go on from the `sums` of another window."""
        self._sums = sums.clone()

    def means(self, sums: Tensor, prefix: str) -> dict[str, float]:
        """`<prefix>/<name>` and `<prefix>/<name>_q0..3` of summed windows; a quartile nobody drew is left out."""
        *values, counts = sums.tolist()
        if not sum(counts):
            return {}
        means: dict[str, float] = {}
        for name, row in zip(self.names, values, strict=True):
            means[f"{prefix}/{name}"] = sum(row) / sum(counts)
            means |= {f"{prefix}/{name}_q{q}": row[q] / counts[q] for q in range(QUARTILES) if counts[q]}
        return means
