"""Running means of the losses between two log lines, kept on the device so that no step waits for a number."""

from __future__ import annotations

import torch
from torch import Tensor

QUARTILES = 4


class LossWindow:
    """Sums of per-sample losses, in all and by quartile of the timestep (as improved-diffusion logs them)."""

    def __init__(self, num_timesteps: int) -> None:
        self.num_timesteps = num_timesteps
        self._sums: Tensor | None = None

    def add(self, loss: Tensor, t: Tensor) -> None:
        """loss float [B], t int64 [B]; losses that are not finite are left out."""
        self._sums = self.sums().to(loss.device)
        quartile = (t * QUARTILES).div(self.num_timesteps, rounding_mode="floor")
        finite = torch.isfinite(loss)
        self._sums[0].index_add_(0, quartile, loss.double().where(finite, 0.0))
        self._sums[1].index_add_(0, quartile, finite.double())

    def sums(self) -> Tensor:
        """The sums float64 [2, 4] (losses, counts) since the last `pop`."""
        return torch.zeros(2, QUARTILES, dtype=torch.float64) if self._sums is None else self._sums

    def pop(self) -> Tensor:
        """The sums, for the ranks to add up; then starts anew."""
        sums, self._sums = self.sums(), None
        return sums

    def restore(self, sums: Tensor) -> None:
        """Go on from the `sums` of another window."""
        self._sums = sums.clone()

    @staticmethod
    def means(sums: Tensor) -> dict[str, float]:
        """`train/loss` and `train/loss_q0..3` of summed windows; a quartile nobody drew is left out."""
        losses, counts = sums.tolist()
        means = {f"train/loss_q{q}": losses[q] / counts[q] for q in range(QUARTILES) if counts[q]}
        return {"train/loss": sum(losses) / sum(counts), **means} if sum(counts) else {}
