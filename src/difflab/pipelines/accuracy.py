"""The accuracy of a classifier on real images, by noise level."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from difflab.compiling import Compilation
from difflab.diffusion.noise import SampleNoise
from difflab.errors import UserError, user_errors
from difflab.images import as_float
from difflab.metrics.accuracy import Judged
from difflab.seeding import stream_seed
from difflab.tasks.build import Model
from difflab.types import Batch


class AccuracyPipeline:
    """Runs a classifier of noised images on images noised as in its training, at several times of its schedule.

    The noise of an image depends on the seed, its index and the time alone, not on the batch.

    model: with logits [B, classes] of (x_t, time). times: how many; the first is the first of the schedule.
    autocast: dtype of the network's arithmetic, None for float32.
    compilation: whether the network is compiled, None for not.

    Raises UserError for more times than the schedule has.
    """

    def __init__(
        self,
        model: Model,
        times: int,
        *,
        autocast: torch.dtype | None = None,
        compilation: Compilation | None = None,
    ) -> None:
        self.model, self.autocast = model, autocast
        self.compilation = compilation or Compilation()
        with user_errors():
            self._times = model.process.even_times(times)

    @property
    def device(self) -> torch.device:
        return next(self.model.network.parameters()).device

    @property
    def times(self) -> list[float]:
        """The times: table rows, or positions in [0, 1)."""
        return self._times.tolist()

    @property
    def sigmas(self) -> list[float]:
        """sigma / alpha at each of the times."""
        return self.model.process.snr(self._times.to(self.device)).rsqrt().tolist()

    def __call__(self, batch: Batch, seed: int) -> Judged:
        """batch: `image` uint8 [B, C, H, W], `index` and `label` int64 [B], on any device.

        Raises UserError for labels outside the classifier's classes, and for logits that are not finite.
        """
        label = batch["label"].to(self.device)
        classes = self.model.config.logits
        assert classes is not None, "the model is a classifier"
        outside = [c for c in label.tolist() if not 0 <= c < classes]
        if outside:
            raise UserError(f"class {outside[0]} is not in 0..{classes - 1}, the classes of this classifier")
        x0 = as_float(batch["image"].to(self.device))
        noise = SampleNoise([stream_seed(seed, "accuracy", i) for i in batch["index"].tolist()], self.device)
        with torch.no_grad():
            found = [self._at(time, x0, noise.randn_like(x0), label) for time in self._times]
        rank, loss = (torch.stack(each, dim=1) for each in zip(*found, strict=True))
        if not bool(torch.isfinite(loss).all()):
            at = self.times[int((~torch.isfinite(loss)).any(0).nonzero()[0])]
            raise UserError(f"the logits at t={at:g} are not finite: set precision=32-true, or take another checkpoint")
        return Judged(rank.cpu(), loss.double().cpu())

    def _at(self, time: Tensor, x0: Tensor, noise: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """How many classes score above the true one [B], and the cross entropy [B]."""
        process = self.model.process
        t = time.to(self.device).expand(len(x0))
        seen = process.network_input(process.q_sample(x0, t, noise), t)
        network = self.compilation.network(self.model.network, self.autocast, rows=len(x0), calls=len(self._times))
        logits = network(seen, process.network_time(t))
        true = logits.gather(1, label[:, None])
        return (logits > true).sum(dim=1), F.cross_entropy(logits, label, reduction="none")
