"""The accuracy of a classifier on real images: clean ones, or by noise level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from difflab.compiling import Compilation
from difflab.diffusion.base_process import Process
from difflab.diffusion.noise import SampleNoise
from difflab.errors import UserError, user_errors
from difflab.images import as_float
from difflab.metrics.accuracy import Judged
from difflab.seeding import stream_seed
from difflab.tasks.build import Model, NoisedModel
from difflab.tasks.classifying import clean_logits
from difflab.types import Batch

TIMES = 20
"""The default number of times of the schedule at which a classifier of noised images is evaluated."""

Network = Callable[..., Tensor]


class Views(Protocol):
    """The ways in which a classifier is shown each image.

    times: of the noise schedule, rows of a table or positions in [0, 1); None for clean images.
    """

    @property
    def times(self) -> list[float] | None: ...

    def __len__(self) -> int: ...

    def logits(self, network: Network, x0: Tensor, seeds: Sequence[int]) -> Iterator[Tensor]:
        """[B, classes] of images [B, C, H, W], whose noise is that of `seeds`, for each view."""
        ...


class CleanView:
    """Each image as it is, once."""

    times: list[float] | None = None

    def __len__(self) -> int:
        return 1

    def logits(self, network: Network, x0: Tensor, seeds: Sequence[int]) -> Iterator[Tensor]:
        yield clean_logits(network, x0)


class NoisedViews:
    """Each image noised as in training, at times of a schedule, from its first to its last.

    Raises UserError for more times than the schedule has.
    """

    def __init__(self, process: Process, count: int) -> None:
        self.process = process
        with user_errors():
            self._times = process.even_times(count)
        self.times: list[float] = self._times.tolist()

    def __len__(self) -> int:
        return len(self._times)

    def sigmas(self, device: torch.device) -> list[float]:
        """sigma / alpha at each of the times."""
        return self.process.snr(self._times.to(device)).rsqrt().tolist()

    def logits(self, network: Network, x0: Tensor, seeds: Sequence[int]) -> Iterator[Tensor]:
        noise = SampleNoise(seeds, x0.device)
        for time in self._times:
            t = time.to(x0.device).expand(len(x0))
            seen = self.process.network_input(self.process.q_sample(x0, t, noise.randn_like(x0)), t)
            yield network(seen, self.process.network_time(t))


class AccuracyPipeline:
    """Runs a classifier on images as in its training: clean, or noised at several times of its schedule.

    The noise of an image depends on the seed, its index and the time alone, not on the batch.

    model: with logits [B, classes]. times: how many, for a classifier of noised images alone; None for `TIMES`.
    autocast: dtype of the network's arithmetic, None for float32.
    compilation: whether the network is compiled, None for not.

    Raises UserError for more times than the schedule has, and for any on clean images.
    """

    def __init__(
        self,
        model: Model,
        times: int | None = None,
        *,
        autocast: torch.dtype | None = None,
        compilation: Compilation | None = None,
    ) -> None:
        self.model, self.autocast = model, autocast
        self.compilation = compilation or Compilation()
        if isinstance(model, NoisedModel):
            self._views: Views = NoisedViews(model.process, TIMES if times is None else times)
        elif times is None:
            self._views = CleanView()
        else:
            raise UserError(f"times={times}: this is {model.config.title}, which is shown each once: leave times out")

    @property
    def device(self) -> torch.device:
        return next(self.model.network.parameters()).device

    @property
    def times(self) -> list[float] | None:
        """The times: table rows, or positions in [0, 1); None for a classifier of clean images."""
        return self._views.times

    @property
    def views(self) -> int:
        """How often each image is shown."""
        return len(self._views)

    @property
    def sigmas(self) -> list[float]:
        """sigma / alpha at each of the times; empty for clean images."""
        return self._views.sigmas(self.device) if isinstance(self._views, NoisedViews) else []

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
        seeds = [stream_seed(seed, "accuracy", i) for i in batch["index"].tolist()]
        network = self.compilation.network(self.model.network, self.autocast, rows=len(x0), calls=self.views)
        with torch.no_grad():
            found = [_judged(logits, label) for logits in self._views.logits(network, x0, seeds)]
        rank, loss = (torch.stack(each, dim=1) for each in zip(*found, strict=True))
        broken = (~torch.isfinite(loss)).any(0).nonzero()
        if len(broken):
            at = "" if self.times is None else f" at t={self.times[int(broken[0])]:g}"
            raise UserError(f"the logits{at} are not finite: set precision=32-true, or take another checkpoint")
        return Judged(rank.cpu(), loss.double().cpu())


def _judged(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """How many classes score above the true one [B], and the cross entropy [B]."""
    true = logits.gather(1, label[:, None])
    return (logits > true).sum(dim=1), F.cross_entropy(logits, label, reduction="none")
