"""What the oracle says about a set of images."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T", int, str)


@dataclass(frozen=True)
class OracleReport:
    """Of n images of `resolution` pixels: how many could be of the data, and what they contain.

    well_formed_rate: share of the images that are well formed (see `Oracle`).
    mean_objects, mean_fit, mean_leftover: objects an image, overlap an object, unexplained share an image.
    objects_per_image: share of the images with that many objects; shapes, colours, sizes, backgrounds: shares of
        the objects (images) that have each. All images count, not only the well formed.
    self_error: share of clean images of that resolution that the oracle itself misreads, the floor of its verdicts.
    class_accuracy, class_accuracies: share of the images whose largest object is of the class asked for, of all and
        of each class that was; None where no classes were asked for.
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
        """The report as plain JSON values, without what is None."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        values["objects_per_image"] = {str(n): rate for n, rate in self.objects_per_image.items()}
        return values


def shares(values: Iterable[T], names: Iterable[T]) -> dict[T, float]:
    """How often each of `names` occurs among `values`, as shares of all values (0 where there are none)."""
    counts = Counter(values)
    total = max(counts.total(), 1)
    return {name: counts[name] / total for name in names}
