"""The exact judge of the shapes data: it reads images back into objects, as GenEval's detector does for photographs."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from difflab.data.boxes import NamedBox
from difflab.data.shapes import EXTENTS, SHAPES, Scene, SceneObject, ShapesSource, class_names, render
from difflab.data.shapes.description import describe
from difflab.data.shapes.geometry import AREAS
from difflab.data.shapes.scene import BACKGROUNDS, COLOURS, size_word
from difflab.data.sources.shapes.config import MAX_OBJECTS, ClassKind
from difflab.metrics.oracle_fit import fit_shapes
from difflab.metrics.oracle_report import OracleReport, shares
from difflab.metrics.oracle_scores import compare, compare_boxes, compare_words, same_scene
from difflab.metrics.oracle_segment import TONES, FloatArray, find_blobs

SELF_TEST_IMAGES = 256
_FEWEST_SELF_TEST_IMAGES = 16
_SELF_TEST_PIXELS = SELF_TEST_IMAGES * 128**2
_SMALLEST_AREA = min(AREAS.values()) * min(low for low, _ in EXTENTS.values()) ** 2
_MIN_BLOB_SHARE = _SMALLEST_AREA / 2
_EXTENT_SLACK = 1.2
_LARGEST_EXTENT = _EXTENT_SLACK * max(high for _, high in EXTENTS.values())
_SMALLEST_EXTENT = min(low for low, _ in EXTENTS.values()) / _EXTENT_SLACK
_PIXELS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class FoundObject(SceneObject):
    """An object read from an image. fit in [0, 1] is the overlap of observed and rendered pixels (1 is perfect);
    colour_error is the RMS distance (of 255 levels) of its pixels from mixtures of its colour and the background."""

    fit: float
    colour_error: float


@dataclass(frozen=True)
class Reading:
    """What the oracle saw in one image.

    objects: every blob large enough to be an object, in no particular order, with its best-fitting shape.
    strays: number of blobs that are too large or too small for any object of the data.
    background, background_error: the nearest tone and the distance to it, of 255 levels.
    leftover: share of the pixels that lie more than `Oracle.leftover_levels` from a clean rendering of the objects.
    well_formed: whether the image could be one of the data; see `Oracle`.
    """

    objects: tuple[FoundObject, ...]
    strays: int
    background: str
    background_error: float
    leftover: float
    well_formed: bool

    def scene(self) -> Scene:
        """The scene as read."""
        return Scene(self.objects, self.background)


@dataclass(frozen=True)
class Oracle:
    """Reads images of shapes. An image is well formed if it has 1..max_objects objects, no strays, each object overlaps
    a rendered shape by at least `min_fit`, at most `max_leftover` of its pixels stay unexplained, and the background is
    within `max_background_error` levels of a tone of the data. Objects of the data never touch: two that do are read as
    one, which fits badly.

    Images are uint8 or float [-1, 1] tensors [B, 3, H, H], 16 <= H <= 1024; anything else raises ValueError.
    """

    max_objects: int = MAX_OBJECTS
    min_fit: float = 0.85
    max_leftover: float = 0.01
    leftover_levels: float = 64.0
    max_background_error: float = 30.0

    def read(self, images: Tensor) -> list[Reading]:
        """Reads the content of each image."""
        _check(images)
        if not len(images):
            return []
        chunk = max(1, _PIXELS_AT_ONCE // images.shape[-1] ** 2)
        return [reading for part in images.split(chunk) for reading in self._read(_levels(part))]

    def well_formed(self, images: Tensor) -> Tensor:
        """bool [B]: which images could be from the data."""
        return torch.tensor([reading.well_formed for reading in self.read(images)], dtype=torch.bool)

    def score(self, images: Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
        """How well each image shows the requested scene: rates in [0, 1] over the images.

        count, colours, shapes, sizes, background: the number, the multiset, or the tone is right; binding: each
        requested object is there with its own shape and colour; relations: share of the first object's relations to the
        others (those that captions name) that hold, over scenes that have any; box_iou: mean overlap of the requested
        boxes with the found object of that shape and colour; class: shape of the main object; all: the first four,
        binding and relations together; well_formed.
        """
        if len(images) != len(scenes) or not scenes:
            raise ValueError(
                f"{len(images)} images cannot be scored against {len(scenes)} scenes; give as many of both"
            )
        readings = self.read(images)
        rows = [compare(reading.scene(), scene) for reading, scene in zip(readings, scenes, strict=True)]
        names = sorted({name for row in rows for name in row})
        rates = {name: statistics.fmean(row[name] for row in rows if name in row) for name in names}
        return {**rates, "well_formed": statistics.fmean(reading.well_formed for reading in readings)}

    @staticmethod
    def score_captions(readings: Sequence[Reading], captions: Sequence[str]) -> tuple[dict[str, float], int]:
        """How well each image that was read shows what its caption says (`compare_words`): means over the images whose
        caption says anything of the kind; and how many captions name an object at all. Empty and 0 if none does.
        """
        described = [describe(text) for text in captions]
        rows = [compare_words(r.scene(), d) for r, d in zip(readings, described, strict=True) if d is not None]
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: statistics.fmean(row[name] for row in rows if name in row) for name in names}, len(rows)

    @staticmethod
    def score_layouts(
        readings: Sequence[Reading], layouts: Sequence[Sequence[NamedBox]]
    ) -> tuple[dict[str, float], int]:
        """How well images that were read show the objects of their boxes: means over all boxes whose phrase names one
        (`compare_boxes`), and `count`, the share of the images with as many objects as boxes; and how many phrases name
        no object. Empty if all of them name none.
        """
        rows: list[dict[str, float]] = []
        counts: list[bool] = []
        unknown = 0
        for reading, layout in zip(readings, layouts, strict=True):
            described = [(describe(phrase), box) for phrase, box in layout]
            wanted = [(d.objects[0], (box[0], box[1], box[2], box[3])) for d, box in described if d is not None]
            unknown += len(layout) - len(wanted)
            rows += compare_boxes(reading.scene(), wanted)
            counts.append(len(reading.objects) == len(layout))
        if not rows:
            return {}, unknown
        means = {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
        return {**means, "count": statistics.fmean(counts)}, unknown

    def class_accuracy(self, images: Tensor, labels: Tensor, classes: Sequence[str]) -> float:
        """Share of the images whose largest object is of the requested class.

        labels int [B] are indices of `classes`, the names that `difflab.data.shapes.class_names` returns.
        """
        return statistics.fmean(right for _, right in _classes_shown(self.read(images), labels, classes))

    def report(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        classes: Sequence[str] | None = None,
        readings: Sequence[Reading] | None = None,
    ) -> OracleReport:
        """What a set of images contains and how much of it is well formed, with the oracle's own error rate.

        With labels and class names (see `class_accuracy`) also how many show their requested class. readings: what
        `read` returned for the images, None to read them now.
        """
        readings = self.read(images) if readings is None else readings
        if not readings:
            raise ValueError("no images to report on")
        objects = [obj for reading in readings for obj in reading.objects]
        counts = [len(reading.objects) for reading in readings]
        shown = None if labels is None or classes is None else _classes_shown(readings, labels, classes)
        return OracleReport(
            n=len(readings),
            resolution=images.shape[-1],
            well_formed_rate=statistics.fmean(reading.well_formed for reading in readings),
            mean_objects=statistics.fmean(counts),
            mean_fit=statistics.fmean(obj.fit for obj in objects) if objects else 0.0,
            mean_leftover=statistics.fmean(reading.leftover for reading in readings),
            objects_per_image=shares(counts, range(max(self.max_objects, *counts) + 1)),
            shapes=shares((obj.shape for obj in objects), SHAPES),
            colours=shares((obj.colour for obj in objects), COLOURS),
            sizes=shares((obj.size for obj in objects), EXTENTS),
            backgrounds=shares((reading.background for reading in readings), BACKGROUNDS),
            self_error=self.self_error(images.shape[-1]),
            class_accuracy=None if shown is None else statistics.fmean(right for _, right in shown),
            class_accuracies=None if shown is None else _accuracy_by_class(shown),
        )

    def self_error(self, resolution: int) -> float:
        """Share of clean, newly rendered images of `resolution` pixels that the oracle fails to read back exactly.

        Measured on 256 images up to 128 px, on fewer above; cached.
        """
        return _self_error(self, resolution)

    def _read(self, pixels: FloatArray) -> list[Reading]:
        side = pixels.shape[1]
        blobs = find_blobs(pixels, _MIN_BLOB_SHARE * side * side)
        spans = np.maximum(blobs.bottom - blobs.top, blobs.right - blobs.left)
        fits_an_object = spans <= 2 * _LARGEST_EXTENT * side + 2
        strays = np.bincount(blobs.image[~fits_an_object], minlength=len(pixels))
        chosen = np.flatnonzero(fits_an_object)
        fits = fit_shapes(pixels, blobs, chosen)
        found: list[list[FoundObject]] = [[] for _ in pixels]
        for i, blob in enumerate(chosen):
            image, extent = int(blobs.image[blob]), float(fits.extent[i]) / side
            if not _SMALLEST_EXTENT <= extent <= _LARGEST_EXTENT:
                strays[image] += 1
                continue
            found[image].append(
                FoundObject(
                    shape=SHAPES[fits.shape[i]],
                    colour=tuple(COLOURS)[blobs.colour[blob]],
                    size=size_word(extent),
                    centre=(float(fits.x[i]) / side, float(fits.y[i]) / side),
                    extent=extent,
                    fit=float(fits.fit[i]),
                    colour_error=float(blobs.colour_error[blob]),
                )
            )
        return [
            self._judge(image, tone, tuple(objects), int(stray))
            for image, tone, objects, stray in zip(pixels, blobs.background, found, strays, strict=True)
        ]

    def _judge(self, pixels: FloatArray, tone: FloatArray, objects: tuple[FoundObject, ...], strays: int) -> Reading:
        distances = np.linalg.norm(TONES - tone, axis=1)
        nearest = int(distances.argmin())
        background = tuple(BACKGROUNDS)[nearest]
        missed = pixels - render(Scene(objects, background), len(pixels))
        leftover = float(np.mean(np.einsum("hwc,hwc->hw", missed, missed) > self.leftover_levels**2))
        well_formed = (
            strays == 0
            and 1 <= len(objects) <= self.max_objects
            and all(obj.fit >= self.min_fit for obj in objects)
            and leftover <= self.max_leftover
            and bool(distances[nearest] <= self.max_background_error)
        )
        return Reading(objects, strays, background, float(distances[nearest]), leftover, well_formed)


def _check(images: Tensor) -> None:
    good_shape = images.ndim == 4 and images.shape[1] == 3 and images.shape[2] == images.shape[3]
    if not good_shape or not 16 <= images.shape[-1] <= 1024:
        raise ValueError(f"the oracle reads [B, 3, H, H] images of 16..1024 pixels, not {list(images.shape)}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"the oracle reads uint8 or float [-1, 1] images, not {images.dtype}")


def _levels(images: Tensor) -> FloatArray:
    images = images.detach().permute(0, 2, 3, 1)
    if images.is_floating_point():
        # A diverged model leaves NaN; as black pixels they count against it.
        images = ((images.float() + 1) * 127.5).nan_to_num(0.0).clamp(0, 255)
    return images.float().cpu().contiguous().numpy()


def reads_classes(classes: Sequence[str]) -> bool:
    """Whether the oracle can recognize every one of these classes: a shape, a colour, or "colour shape"."""
    known = {name for kind in get_args(ClassKind) for name in class_names(kind)}
    return bool(classes) and known.issuperset(classes)


def _classes_shown(readings: Sequence[Reading], labels: Tensor, classes: Sequence[str]) -> list[tuple[str, bool]]:
    """For each image the requested class, and whether its largest object is of that class."""
    if len(labels) != len(readings) or not readings:
        raise ValueError(f"{len(readings)} images and {len(labels)} labels; give as many of both")
    outside = sorted({label for label in labels.tolist() if not 0 <= label < len(classes)})
    if outside:
        raise ValueError(f"label {outside[0]} is none of the {len(classes)} classes of the data")
    requested = [classes[label] for label in labels.tolist()]
    return [(name, _is_of_class(reading, name)) for reading, name in zip(readings, requested, strict=True)]


def _accuracy_by_class(shown: list[tuple[str, bool]]) -> dict[str, float]:
    right: dict[str, list[bool]] = {}
    for name, is_right in shown:
        right.setdefault(name, []).append(is_right)
    return {name: statistics.fmean(right[name]) for name in sorted(right)}


def _is_of_class(reading: Reading, name: str) -> bool:
    if not reading.objects:
        return False
    main = reading.scene().main
    return name in (main.shape, main.colour, f"{main.colour} {main.shape}")


@functools.lru_cache(maxsize=32)
def _self_error(oracle: Oracle, resolution: int) -> float:
    affordable = max(_SELF_TEST_PIXELS // resolution**2, _FEWEST_SELF_TEST_IMAGES)
    source = ShapesSource(resolution=resolution, n=min(affordable, SELF_TEST_IMAGES), split="test")
    scenes = [source.scene(i) for i in range(len(source))]
    images = torch.from_numpy(np.stack([render(scene, resolution) for scene in scenes])).permute(0, 3, 1, 2)
    pairs = zip(oracle.read(images), scenes, strict=True)
    return sum(not (reading.well_formed and same_scene(reading.scene(), scene)) for reading, scene in pairs) / len(
        scenes
    )
