"""Improved precision and recall: how many samples look real, and how much of the data they cover."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from difflab.errors import UserError
from difflab.metrics.base import FeatureMetric, Samples
from difflab.metrics.config import PrecisionRecallConfig
from difflab.metrics.extractors.inception import is_fid_network
from difflab.metrics.naming import with_network
from difflab.metrics.protocol import ExtractorRecord, Result
from difflab.metrics.reference import statistics_device

_ROWS_AT_ONCE = 1024
"""Images per side whose distances are held at once: a few blocks of 8 MB whatever the counts."""

_ROUNDING = 1e-12
"""Squared distances within this share of the squared norms count as equal: the rounding error of float64 products."""


class PrecisionRecall(FeatureMetric[PrecisionRecallConfig]):
    """See `precision_recall`."""

    keeps = frozenset({"pool"})

    def check_count(self, n: int) -> None:
        if n <= self.config.k:
            raise UserError(
                f"{self.key}.k={self.config.k} needs at least n={self.config.k + 1} samples, not n={n}; "
                f"draw more or lower {self.key}.k"
            )

    def check_reference(self, found: int) -> None:
        if found <= self.config.k:
            raise UserError(
                f"{self.key}.k={self.config.k} needs at least {self.config.k + 1} reference images, there are {found}; "
                f"use more, or lower {self.key}.k"
            )

    def results(self, samples: Samples) -> list[Result]:
        features, reference = samples.compared_features()
        device = statistics_device(samples.device)
        values = precision_recall(features.pool.to(device), reference.to(device), self.config.k)
        parameters = {"k": self.config.k, "reference_features": len(reference)}
        names = precision_recall_names(features.extractor.record)
        return [samples.result(name, value, parameters) for name, value in zip(names, values, strict=True)]


def precision_recall_names(extractor: ExtractorRecord) -> tuple[str, str]:
    """`precision` and `recall` with the 2015 features, as in papers; else `precision-lite0`, `recall-lite0`."""
    if is_fid_network(extractor):
        return "precision", "recall"
    return with_network("precision", extractor), with_network("recall", extractor)


def precision_recall(samples: Tensor, reference: Tensor, k: int) -> tuple[float, float]:
    """(precision, recall), each in [0, 1]; Kynkaanniemi et al. 2019, eqs. 1 and 2.

    samples [n, D], reference [m, D] features, on one device. A set's manifold is the union of balls around its images,
    each with the distance to the k-th nearest other image of the set as its radius. Precision is the share of the
    samples in the manifold of the reference, recall the share of the reference in the manifold of the samples. Both
    depend on n
    and m: compare them only at equal counts.

    Computed in float64, where ties and repeated images count as inside. The evaluators of the paper and of ADM cast
    features to float16 before computing distances, which gives slightly different numbers.

    Raises UserError with fewer than k + 1 images on a side, ValueError if features are not finite.
    """
    smaller = min(len(samples), len(reference))
    if smaller <= k:
        raise UserError(
            f"precision and recall with k={k} neighbours need at least {k + 1} images on each side, there are "
            f"{len(samples)} and {len(reference)}; draw more or lower k"
        )
    if not all(bool(features.isfinite().all()) for features in (samples, reference)):
        raise ValueError("the features of some images are not finite, so they have no neighbours")
    of_samples, of_reference = _squared_radii(samples, k), _squared_radii(reference, k)
    precise = torch.zeros(len(samples), dtype=torch.bool, device=samples.device)
    covered = torch.zeros(len(reference), dtype=torch.bool, device=samples.device)
    for rows, columns, distances, slack in _blocks(samples, reference):
        distances -= slack
        precise[rows] |= (distances <= of_reference[columns]).any(dim=1)
        covered[columns] |= (distances <= of_samples[rows, None]).any(dim=0)
    return float(precise.double().mean()), float(covered.double().mean())


def _squared_radii(features: Tensor, k: int) -> Tensor:
    """float64 [n]: squared distance of each row to its k-th nearest other row."""
    nearest = torch.full((len(features), k), torch.inf, dtype=torch.float64, device=features.device)
    for rows, columns, distances, _ in _blocks(features, features):
        if rows == columns:
            distances.fill_diagonal_(torch.inf)
        joined = torch.cat([nearest[rows], distances], dim=1)
        nearest[rows] = joined.topk(k, dim=1, largest=False).values
    return nearest.amax(dim=1)


def _blocks(a: Tensor, b: Tensor) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """(rows of a, rows of b, squared distances, their possible rounding error), float64, block by block."""
    for rows in _slices(len(a)):
        left = a[rows].double()
        for columns in _slices(len(b)):
            right = b[columns].double()
            norms = left.square().sum(dim=1)[:, None] + right.square().sum(dim=1)
            yield rows, columns, norms - 2 * (left @ right.T), _ROUNDING * norms


def _slices(n: int) -> Iterator[slice]:
    for begin in range(0, n, _ROWS_AT_ONCE):
        yield slice(begin, min(begin + _ROWS_AT_ONCE, n))
