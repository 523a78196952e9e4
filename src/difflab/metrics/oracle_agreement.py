"""The shapes oracle on samples or reconstructions: whether it reads in them what it reads in their originals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from difflab.config.data import DataConfig
from difflab.data.shapes.scene import Scene, SceneObject
from difflab.errors import UserError
from difflab.metrics.base import Samples, ScoreMetric
from difflab.metrics.config import OracleAgreementConfig
from difflab.metrics.oracle_results import no_shapes
from difflab.metrics.protocol import Result
from difflab.metrics.scores import Pictures

ATTRIBUTES = ("shape", "colour", "size", "position")
PARTS = ("objects", *ATTRIBUTES, "images")
"""What is compared: whole objects, one attribute of each, and whole images."""
COMPARISONS = ("same", "true", "original")
"""Image beside original, image beside the original's recorded scene, original beside its recorded scene."""
WIDTH = len(PARTS) + 1
BY_ATTRIBUTE = "by_attribute"


class OracleAgreement(ScoreMetric[OracleAgreementConfig]):
    """`oracle-same-objects`, `oracle-same-images` and, where the data records its scenes, `oracle-true-objects` and
    `oracle-true-images`; see `agreement`.

    The details have the same shares by attribute, and of the latter two those of the originals beside the scenes.
    """

    columns = WIDTH * len(COMPARISONS)

    def unsuited(self, data: DataConfig | None, image_size: int) -> str | None:
        why = no_shapes(data, image_size)
        return None if why is None else f"judges shapes data alone, and {why}"

    def score(self, images: Tensor, pictures: Pictures) -> Tensor:
        from difflab.metrics.oracle import Oracle

        assert pictures.original is not None, "there is something to compare with"
        oracle = Oracle()
        both = (images, pictures.original)
        made, originals = ([one.scene() for one in oracle.read(x.expand(-1, 3, -1, -1))] for x in both)
        rows = [self._agreements(made, originals)]
        if pictures.scenes is None:
            rows += [torch.full((len(images), WIDTH), math.nan, dtype=torch.float64)] * 2
        else:
            true = [Scene.from_dict(values) for values in pictures.scenes]
            rows += [self._agreements(made, true), self._agreements(originals, true)]
        return torch.cat(rows, dim=1)

    def results(self, samples: Samples) -> list[Result]:
        from difflab.metrics.oracle import Oracle

        assert samples.scores is not None
        scores = samples.scores
        parameters: dict[str, Any] = {
            **dataclasses.asdict(Oracle()),
            "tolerance": self.config.tolerance,
            **scores.compared_with,
        }
        same, true, original = (_shares(rows) for rows in scores.values.split(WIDTH, dim=1))
        if same is None:
            raise UserError(f"{self.key}: the shapes oracle reads no object in the originals; set {self.key}=null")
        compared = {"same": same} if true is None else {"same": same, "true": true}
        return [
            samples.result(
                f"oracle-{name}-{part}",
                shares[part][0],
                parameters,
                spread=shares[part][1],
                details={
                    **({BY_ATTRIBUTE: {each: shares[each][0] for each in ATTRIBUTES}} if part == "objects" else {}),
                    **({"of_originals": original[part][0]} if name == "true" and original is not None else {}),
                },
            )
            for name, shares in compared.items()
            for part in ("objects", "images")
        ]

    def in_words(self, results: Sequence[Result]) -> list[str]:
        for one in results:
            found: Any = one.details.get(BY_ATTRIBUTE)
            if one.metric == "oracle-same-objects" and found:
                shown = ", ".join(f"{attribute} {share:.3g}" for attribute, share in found.items())
                return [f"of the objects in the originals, the oracle reads the same {shown}"]
        return []

    def _agreements(self, found: Sequence[Scene], wanted: Sequence[Scene]) -> Tensor:
        rows = [agreement(a, b, self.config.tolerance) for a, b in zip(found, wanted, strict=True)]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, WIDTH)


def agreement(found: Scene, wanted: Scene, tolerance: float) -> list[float]:
    """The number of objects that are wanted; how many of them are found as they are, and with the same shape, colour,
    size and position; and 1.0 if exactly these are found, on the same background, else 0.0.

    Objects are paired by their distance, the nearest two first. tolerance: the largest distance of their centres at the
    same position, in sides of the image.
    """
    pairs = _paired(found, wanted)
    alike = [
        (a.shape == b.shape, a.colour == b.colour, a.size == b.size, distance(a, b) <= tolerance) for a, b in pairs
    ]
    objects, count = sum(map(all, alike)), len(wanted.objects)
    of_each = [float(sum(one[place] for one in alike)) for place in range(len(ATTRIBUTES))]
    whole = objects == count == len(found.objects) and found.background == wanted.background
    return [float(count), float(objects), *of_each, float(whole)]


def distance(a: SceneObject, b: SceneObject) -> float:
    """Of the centres, in sides of the image."""
    return math.dist(a.centre, b.centre)


def _paired(found: Scene, wanted: Scene) -> list[tuple[SceneObject, SceneObject]]:
    places = [(i, j) for i in range(len(found.objects)) for j in range(len(wanted.objects))]
    pairs: list[tuple[int, int]] = []
    for i, j in sorted(places, key=lambda at: distance(found.objects[at[0]], wanted.objects[at[1]])):
        if all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return [(found.objects[i], wanted.objects[j]) for i, j in pairs]


def _shares(rows: Tensor) -> dict[str, tuple[float, float | None]] | None:
    """The share of each part over the images [n, WIDTH], with its standard error; None if there are no objects."""
    count, objects = len(rows), float(rows[:, 0].sum())
    if not objects > 0:
        return None
    found: dict[str, tuple[float, float | None]] = {}
    for place, part in enumerate(PARTS, start=1):
        total = rows[:, 0] if part != "images" else torch.ones_like(rows[:, 0])
        share = float(rows[:, place].sum() / total.sum())
        # That of a ratio of two sums over images, to first order.
        squares = float((rows[:, place] - share * total).square().sum())
        error = math.sqrt(squares * count / (count - 1)) / float(total.sum()) if count > 1 else None
        found[part] = share, error
    return found
