"""The oracle's report on a set of images."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T", int, str)


@dataclass(frozen=True)
class OracleReport:
    """Summary of n images of `resolution` pixels: how many could be from the data, and what they contain.

    well_formed_rate: share of the images that are well formed (see `Oracle`).
    mean_objects, mean_fit, mean_leftover: objects per image, overlap per object, unexplained share per image.
    objects_per_image: share of the images with each number of objects; shapes, colours, sizes, backgrounds: shares of
        the objects (images) with each. All images count, not only the well-formed ones.
    self_error: share of clean images of that resolution that the oracle itself misreads, a lower bound on its error.
    class_accuracy, class_accuracies: share of the images whose largest object is of the requested class, overall and
        for each requested class; None if no classes were requested.
    """

    n: int
    resolution: int
    well_formed_rate: float
    mean_objects: float
    mean_fit: float
    mean_leftover: float
    objects_per_image: dict[int, float]
    shapes: dict[str, float]
    colours: dict[str, float]
    sizes: dict[str, float]
    backgrounds: dict[str, float]
    self_error: float
    class_accuracy: float | None = None
    class_accuracies: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON values, without None entries."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        values["objects_per_image"] = {str(n): rate for n, rate in self.objects_per_image.items()}
        return values


def shares(values: Iterable[T], names: Iterable[T]) -> dict[T, float]:
    """The frequency of each of `names` among `values`, as shares of all values (0 if there are none)."""
    counts = Counter(values)
    total = max(counts.total(), 1)
    return {name: counts[name] / total for name in names}
