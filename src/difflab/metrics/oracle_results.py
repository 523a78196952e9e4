"""The shapes oracle as a metric: its report as results."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab.config.data import DataConfig
from difflab.config.metrics import MetricBase
from difflab.errors import UserError
from difflab.metrics.base import Metric, Samples
from difflab.metrics.protocol import Result

if TYPE_CHECKING:
    from difflab.metrics.oracle import Oracle, Reading

_NOT_RESULTS = ("n", "resolution", "self_error")
SIDES = 16, 1024
"""Pixels per side that it supports."""


class ShapesOracle(Metric[MetricBase]):
    """One result per number of the report (`oracle-well-formed-rate`, ...); the first has the whole report as details.

    If the class of every sample is known, and the oracle knows all their names, one is `oracle-class-accuracy`. If the
    caption of every sample is known, and some name objects of the data, `oracle-caption-attributes` and others say how
    well images show them (`compare_words`); likewise `oracle-layout-box-iou` and others, if boxes were requested whose
    phrases name objects of the data (`compare_boxes`), and `oracle-map-iou` and others, if maps of classes were
    requested (`score_maps`).
    """

    keeps = frozenset({"images", "labels", "captions", "layouts", "maps"})

    def unsuited(self, data: DataConfig | None, image_size: int) -> str | None:
        why = no_shapes(data, image_size)
        return None if why is None else f"judges shapes data alone, and {why}"

    def results(self, samples: Samples) -> list[Result]:
        from difflab.metrics.oracle import Oracle, reads_classes

        assert samples.images is not None
        names = samples.class_names
        oracle, classes = Oracle(), names if names is not None and reads_classes(names) else None
        images = samples.images.expand(-1, 3, -1, -1)
        try:
            readings = oracle.read(images)
            report = oracle.report(images, samples.labels, classes, readings).as_dict()
        except ValueError as error:
            raise UserError(f"the shapes oracle cannot judge these samples: {error}; set {self.key}=null") from None
        results: list[Result] = []
        for key, value in report.items():
            if key in _NOT_RESULTS or isinstance(value, dict):
                continue
            parameters: dict[str, Any] = dataclasses.asdict(oracle)
            if key == "class_accuracy" and classes is not None:
                parameters["class_names"] = list(classes)
            metric = f"oracle-{key.replace('_', '-')}"
            results.append(samples.result(metric, float(value), parameters, details={} if results else report))
        of_layouts = self._of_layouts(samples, oracle, readings)
        of_maps = self._of_maps(samples, oracle, readings)
        return results + self._of_captions(samples, oracle, readings) + of_layouts + of_maps

    def _of_captions(self, samples: Samples, oracle: Oracle, readings: Sequence[Reading]) -> list[Result]:
        if samples.captions is None:
            return []
        scores, count = oracle.score_captions(readings, samples.captions)
        others = samples.n - count
        left_out = f"{others} of {samples.n} captions name no shape of the data and are left out" if others else None
        return _scored(samples, oracle, "caption", sha256_of_texts(samples.captions), scores, left_out)

    def _of_layouts(self, samples: Samples, oracle: Oracle, readings: Sequence[Reading]) -> list[Result]:
        if samples.layouts is None:
            return []
        scores, unknown = oracle.score_layouts(readings, samples.layouts)
        digest = sha256_of_texts([json.dumps(list(layout)) for layout in samples.layouts])
        boxes = sum(map(len, samples.layouts))
        left_out = f"{unknown} of {boxes} phrases name no shape of the data and are left out" if unknown else None
        return _scored(samples, oracle, "layout", digest, scores, left_out)

    def _of_maps(self, samples: Samples, oracle: Oracle, readings: Sequence[Reading]) -> list[Result]:
        from difflab.metrics.oracle_maps import score_maps

        if samples.maps is None:
            return []
        try:
            scores = score_maps([reading.scene() for reading in readings], samples.maps)
        except ValueError as error:
            raise UserError(f"the shapes oracle cannot judge these samples: {error}; set {self.key}=null") from None
        digest = hashlib.sha256(b"".join(one.numpy().tobytes() for one in samples.maps)).hexdigest()
        return _scored(samples, oracle, "map", digest, scores)


def _scored(
    samples: Samples, oracle: Oracle, given: str, digest: str, scores: Mapping[str, float], left_out: str | None = None
) -> list[Result]:
    """A result for each score of how well samples show what was given for each of them: caption, layout or map.

    digest: the hash of all that was given.
    """
    parameters = {**dataclasses.asdict(oracle), f"{given}s": digest}
    warnings = [] if left_out is None else [left_out]
    return [
        samples.result(f"oracle-{given}-{name.replace('_', '-')}", value, parameters, warnings=warnings)
        for name, value in scores.items()
    ]


def sha256_of_texts(texts: Sequence[str]) -> str:
    """A hash of texts in their order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def no_shapes(data: DataConfig | None, image_size: int) -> str | None:
    """Why samples cannot be judged as shapes; None if they can."""
    from difflab.data.build import class_names_of, source_of
    from difflab.metrics.oracle import reads_classes

    low, high = SIDES
    if not low <= image_size <= high:
        return f"it reads {low} to {high} px, not {image_size}"
    if data is None or not Path(data.path).exists():
        return "there is no data set that says so"
    source, names = source_of(data), class_names_of(data)
    if source is not None:
        return None if source == "shapes" else f"{data.path} was made from source={source}"
    return None if names and reads_classes(names) else f"{data.path} is not known to be made from source=shapes"
