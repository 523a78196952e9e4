"""The accuracy of samples: how often a trained classifier of clean images predicts their requested class."""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difflab.config.model import NoisedModelConfig
from difflab.console import listed
from difflab.errors import UserError
from difflab.images import as_float
from difflab.metrics.base import Metric, SampleFacts, Samples
from difflab.metrics.config import ClassesConfig
from difflab.metrics.extractors.base import FeatureExtractor, Features, sha256_of_tensors
from difflab.metrics.protocol import ExtractorRecord, Result
from difflab.pipelines.stored import Stored, find_stored, load_stored
from difflab.tasks.build import Model
from difflab.tasks.classifying import clean_logits

ACCURACY, CONFIDENCE = "class-accuracy", "class-confidence"
SHOWN = 10
"""The number of classes, those of the lowest accuracy, that the command prints."""


class ClassAccuracy(Metric[ClassesConfig]):
    """`class-accuracy` and `class-confidence`, with standard errors; the details of the first have both by class."""

    keeps = frozenset({"logits", "labels"})

    @functools.cached_property
    def stored(self) -> Stored:
        """The classifier. Raises UserError if it does not exist, or does not classify clean images."""
        stored = find_stored(self.config.classifier, "auto", "classifier")
        model, said = stored.config, f"classifier={self.config.classifier} is {stored.config.title}"
        if model.logits is None:
            raise UserError(f"{said}, not a classifier: give a run of task=classifier")
        if isinstance(model, NoisedModelConfig):
            raise UserError(
                f"{said}, made for noised images, and samples are clean: train one with task=classifier, as "
                "experiment=classifier/shapes32 does"
            )
        return stored

    @property
    def files(self) -> Sequence[Path]:
        return [self.stored.weights]

    def extractor(self, device: torch.device) -> FeatureExtractor:
        weights = self.stored.weights
        return _loaded(self.config.classifier, weights.resolve(), weights.stat().st_mtime_ns, torch.device(device))

    def check_samples(self, facts: SampleFacts) -> None:
        model = self.stored.config
        if facts.shape != model.shape:
            raise UserError(
                f"classifier={self.config.classifier} takes {_in_words(model.shape)} images, the samples are "
                f"{_in_words(facts.shape)}: train one on the data of the samples"
            )
        if facts.unlabelled is not None:
            raise UserError(f"{self.key} needs the requested class of each sample, but {facts.unlabelled}")
        self._refuse_beyond(facts.highest, len(self._numbers(facts.class_names, facts.classes)))

    def results(self, samples: Samples) -> list[Result]:
        assert samples.features is not None
        if samples.labels is None:
            raise UserError(f"{self.key}: the requested class of each sample is not known")
        numbers = self._numbers(samples.class_names, None)
        self._refuse_beyond(int(samples.labels.max()), len(numbers))
        logits = samples.features.logits.double()
        if not bool(torch.isfinite(logits).all()):
            raise UserError(f"{self.key}: the logits of classifier={self.config.classifier} are not finite")
        asked = torch.tensor(numbers)[samples.labels]
        hits = (logits.argmax(dim=1) == asked).double()
        confidence = logits.softmax(dim=1).gather(1, asked[:, None])[:, 0]
        by_class = self._by_class(samples, logits, hits, confidence)
        parameters = {
            "classes": self.stored.config.logits,
            "class_names": None if samples.class_names is None else list(samples.class_names),
            "classifier": _described(self.stored),
        }
        details: list[dict[str, Any]] = [{"by_class": by_class}, {}]
        return [
            samples.result(name, float(values.mean()), parameters, spread=_standard_error(values), details=more)
            for name, values, more in zip((ACCURACY, CONFIDENCE), (hits, confidence), details, strict=True)
        ]

    def in_words(self, results: Sequence[Result]) -> list[str]:
        for one in results:
            by_class: Any = one.details.get("by_class")
            if one.metric == ACCURACY and one.protocol.label == self.config.label and isinstance(by_class, dict):
                worst = sorted(by_class.items(), key=lambda item: item[1]["accuracy"])
                shown = ", ".join(f"{name} {found['accuracy']:.3g}" for name, found in worst[:SHOWN])
                more = f", and {len(worst) - SHOWN} more" if len(worst) > SHOWN else ""
                return [f"{one.name} by class, lowest first: {shown}{more}"]
        return []

    def _by_class(self, samples: Samples, logits: Tensor, hits: Tensor, confidence: Tensor) -> dict[str, Any]:
        """Results by the name of each requested class, or by its index."""
        assert samples.labels is not None
        theirs, found = self.stored.config.class_names, {}
        for label in sorted(set(samples.labels.tolist())):
            of_class = samples.labels == label
            missed = logits.argmax(dim=1)[of_class & (hits == 0)]
            taken = int(missed.mode().values) if len(missed) else None
            found[str(label) if samples.class_names is None else samples.class_names[label]] = {
                "n": int(of_class.sum()),
                "accuracy": float(hits[of_class].mean()),
                "confidence": float(confidence[of_class].mean()),
                "mostly_taken_for": taken if taken is None or theirs is None else theirs[taken],
            }
        return found

    def _refuse_beyond(self, highest: int | None, classes: int) -> None:
        if highest is not None and highest >= classes:
            raise UserError(
                f"{self.key}: the requested class {highest} is outside of the {classes} classes 0..{classes - 1}"
            )

    def _numbers(self, names: Sequence[str] | None, count: int | None) -> list[int]:
        """The classifier's index of each class of the samples: by name, or by index if either has no names.

        Raises UserError if the classes do not match.
        """
        model, said = self.stored.config, f"classifier={self.config.classifier}"
        assert model.logits is not None, "refused otherwise"
        theirs = model.class_names
        if names is not None and theirs is not None:
            unknown = [name for name in names if name not in theirs]
            if unknown:
                raise UserError(
                    f"{said} has the classes {listed(theirs, SHOWN)}, not the samples' {listed(unknown, SHOWN)}: train "
                    "one on the data of the samples"
                )
            return [theirs.index(name) for name in names]
        count = len(names) if names is not None else count
        if count not in (None, model.logits):
            raise UserError(
                f"{said} has {model.logits} classes, but the samples have {count}: train one on the data of the samples"
            )
        return list(range(model.logits))


class _Judge(FeatureExtractor):
    """The logits of a classifier of clean images."""

    def __init__(self, model: Model, device: torch.device) -> None:
        super().__init__(model.network, device)
        config = model.config
        assert config.logits is not None, "refused otherwise"
        self.channels = config.channels
        self.record = ExtractorRecord(
            name="classifier",
            weights_sha256=sha256_of_tensors(model.network),
            feature_dim=config.logits,
            layer="logits",
            size=config.image_size,
            resize="none",
        )

    def _features(self, images: Tensor) -> Features:
        logits = clean_logits(self.network, as_float(images[:, : self.channels]))
        return Features(logits, logits)


@functools.lru_cache(maxsize=4)
def _loaded(run: str, weights: Path, changed: int, device: torch.device) -> _Judge:
    # `weights` and `changed` distinguish the states of a run in the cache.
    return _Judge(load_stored(run, "auto", device)[0], device)


def _described(stored: Stored) -> dict[str, Any]:
    """The description of a classifier for the record; the hash of its weights is in the extractor's record."""
    return {"run": str(stored.home), "experiment": stored.config.experiment, "val_top1": _validated(stored)}


def _validated(stored: Stored) -> float | None:
    """The accuracy of a run's last validation, None if not known."""
    log = None if stored.run_dir is None or stored.path.is_file() else stored.run_dir / "metrics.csv"
    if log is None or not log.is_file():
        return None
    # A crash may leave zero bytes and torn lines.
    rows = csv.DictReader(log.read_text(encoding="utf-8", errors="replace").replace("\0", "").splitlines())
    found = [row["val/top1"] for row in rows if row.get("val/top1")]
    try:
        return float(found[-1]) if found else None
    except ValueError:
        return None


def _standard_error(values: Tensor) -> float | None:
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None


def _in_words(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
