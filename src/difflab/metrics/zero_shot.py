"""Classification without training: rates, by class, and what is taken for what."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from difflab.metrics.calibration import Bin, reliability
from difflab.metrics.gather import gather_rows
from difflab.metrics.reference import in_order


@dataclass(frozen=True)
class Classified:
    """Images by their index, [n] each.

    index, label int64; rank int64: how many classes are ahead of the true one; predicted int64; confidence float64: the
    probability of the predicted class; cross_entropy float64, in nats. classes: how many there are.
    """

    index: Tensor
    label: Tensor
    rank: Tensor
    predicted: Tensor
    confidence: Tensor
    cross_entropy: Tensor
    classes: int

    def hits(self, k: int) -> Tensor:
        """1 if the true class is among the k likeliest, else 0: float64 [n]."""
        return (self.rank < k).double()

    def counts(self) -> Tensor:
        """The number of images of each class, int64 [classes]."""
        return torch.bincount(self.label, minlength=self.classes)

    def by_class(self, k: int) -> Tensor:
        """The share of hits of each class, float64 [classes]; NaN for one without images."""
        sums = torch.zeros(self.classes, dtype=torch.float64).index_add_(0, self.label, self.hits(k))
        return sums / self.counts()

    def mean_per_class(self) -> tuple[float, float | None]:
        """The mean over the classes that have images of their share of hits, and its standard error.

        The error is None if some class has a single image.
        """
        counts, hits = self.counts(), self.hits(1)
        there = (counts > 0).nonzero()[:, 0].tolist()
        variances = [float(hits[self.label == c].var()) / int(counts[c]) for c in there if counts[c] > 1]
        error = math.sqrt(sum(variances)) / len(there) if len(variances) == len(there) else None
        return float(self.by_class(1)[there].mean()), error

    def confusion(self) -> Tensor:
        """How many images of a class (row) are predicted as another (column), int64 [classes, classes]."""
        pairs = torch.bincount(self.label * self.classes + self.predicted, minlength=self.classes**2)
        return pairs.reshape(self.classes, self.classes)

    def reliability(self) -> list[Bin]:
        """Confidence and accuracy by bins of the confidence."""
        return reliability(self.confidence, self.rank == 0)


class ClassifiedTally:
    """Accumulates the images of this process."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._whole: list[Tensor] = []
        self._real: list[Tensor] = []

    def add(self, index: Tensor, label: Tensor, logits: Tensor) -> None:
        """index, label: int64 [b]; logits: [b, classes].

        Of classes with equal logits the first is ahead, so that a model that cannot tell is at chance.
        """
        found, true = logits.double().cpu(), label.cpu()
        own = found.gather(1, true[:, None])
        earlier = torch.arange(self.classes) < true[:, None]
        rank = ((found > own) | ((found == own) & earlier)).sum(dim=1)
        log_p = found.log_softmax(dim=1)
        # The first of the largest: argmax does not say which of several it gives.
        predicted = (found == found.amax(dim=1, keepdim=True)).int().argmax(dim=1)
        confidence = log_p.gather(1, predicted[:, None])[:, 0].exp()
        self._whole.append(torch.stack([index.cpu(), true, rank, predicted], dim=1))
        self._real.append(torch.stack([confidence, -log_p.gather(1, true[:, None])[:, 0]], dim=1))

    def over_ranks(self) -> Classified:
        """Gathers the images of all processes; every process must call it. Raises ValueError if there are none."""
        whole = gather_rows(torch.cat([torch.zeros(0, 4, dtype=torch.int64), *self._whole]))
        real = gather_rows(torch.cat([torch.zeros(0, 2, dtype=torch.float64), *self._real]))
        if not len(whole):
            raise ValueError("no image was readable; repair the data set or choose another split")
        real = in_order(whole[:, 0], real)[1]
        index, whole = in_order(whole[:, 0], whole)
        return Classified(index, *whole[:, 1:].unbind(1), *real.unbind(1), classes=self.classes)
