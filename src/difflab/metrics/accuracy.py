"""Accuracy and cross entropy of a classifier over many images, accumulated by batch and over all processes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from difflab.metrics.gather import gather_rows
from difflab.metrics.reference import in_order


@dataclass(frozen=True)
class Judged:
    """Results for some images at several times: rank int64 [b, times], the number of classes that score above the true
    one, and the cross entropy float64 [b, times] in nats."""

    rank: Tensor
    cross_entropy: Tensor


@dataclass(frozen=True)
class Accuracy:
    """Results for all images, by their index: index int64 [n], label int64 [n] (-1 if unknown), and the rest as in
    `Judged`.
    """

    index: Tensor
    rank: Tensor
    cross_entropy: Tensor
    label: Tensor

    def hits(self, k: int) -> Tensor:
        """1 if the true class is among the k largest logits, else 0: float64 [n, times]."""
        return (self.rank < k).double()

    def by_class(self, k: int) -> dict[int, tuple[int, float]]:
        """Of each class that some image has, how many have it and the share of `hits` among them."""
        hits = self.hits(k).mean(dim=1)
        return {
            c: (int((self.label == c).sum()), float(hits[self.label == c].mean()))
            for c in sorted(set(self.label.tolist()))
        }


class AccuracyTally:
    """Accumulates the images of this process."""

    def __init__(self) -> None:
        self._indices: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._rows: list[Tensor] = []

    def add(self, index: Tensor, found: Judged, label: Tensor | None = None) -> None:
        """index int64 [b]: the images' positions in their split, each of which occurs once. label int64 [b]: the true
        classes."""
        self._indices.append(index.cpu())
        self._labels.append(torch.full_like(index, -1).cpu() if label is None else label.cpu())
        self._rows.append(torch.stack([found.rank.double(), found.cross_entropy], dim=2))

    def over_ranks(self, times: int) -> Accuracy:
        """Gathers the images of all processes; every process must call it. Raises ValueError if there are none."""
        indices = torch.cat([torch.zeros(0, dtype=torch.int64), *self._indices])
        rows = torch.cat([torch.zeros(0, times, 2, dtype=torch.float64), *self._rows])
        labels = torch.cat([torch.zeros(0, dtype=torch.int64), *self._labels])
        unordered = gather_rows(indices)
        labels = in_order(unordered, gather_rows(labels))[1]
        index, rows = in_order(unordered, gather_rows(rows))
        if not len(index):
            raise ValueError("no image was readable; repair the data set or choose another split")
        return Accuracy(index, rows[..., 0].long(), rows[..., 1], labels)


def mean_and_error(values: Tensor) -> tuple[float, float | None]:
    """The mean of float64 [n, times], and its standard error over the images; None for a single image."""
    of_images = values.mean(dim=1)
    error = float(of_images.std()) / math.sqrt(len(of_images)) if len(of_images) > 1 else None
    return float(of_images.mean()), error
