"""Zero-shot classification: images by the prompts that their embeddings are nearest to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from difflab.commands.command import Kept, Machine
from difflab.commands.measurements.images import ImagesMeasurement, log_picture
from difflab.commands.measurements.measuring import Measuring
from difflab.config.data import DataConfig
from difflab.config.zero_shot import ZeroShotConfig
from difflab.images import as_float
from difflab.metrics.calibration import BINS, expected_calibration_error
from difflab.metrics.gather import gather_rows
from difflab.metrics.protocol import Result
from difflab.metrics.reference import in_order
from difflab.metrics.zero_shot import Classified, ClassifiedTally
from difflab.pipelines.embedding import EmbeddingPipeline, class_vectors
from difflab.pipelines.prompts import Prompts, data_with_classes, files_of, label_fields, labels_of, prompts_of
from difflab.pipelines.robustness.changes import change_of, change_parameters, changed_in_words
from difflab.tracking.rundir import RunDirectory
from difflab.tracking.zero_shot import (
    plot_confusion,
    plot_reliability,
    write_classes,
    write_confusion,
    write_reliability,
)
from difflab.types import Batch

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from difflab.commands.processes import Processes

TOP = 5
"""With more classes than this, top-5 accuracy is measured as well."""
NAMED = 3
"""How many of the best and of the worst classes are named."""


class ZeroShotMeasurement(ImagesMeasurement[ZeroShotConfig]):
    """`zero-shot-top1`, `-top5` of more than five classes, `-mean-per-class`, and `expected-calibration-error`."""

    kind = "zero_shot"
    what = "zero-shot classification"
    method = ("templates", "class_names", "label", "too_long", "corruption", "severity", "attack", "epsilon", "steps")

    pipeline: EmbeddingPipeline
    prompts: Prompts
    vectors: Tensor
    classified: Classified
    clean: float | None = None

    def read_as(self, data: DataConfig) -> DataConfig:
        data = data_with_classes(data, self.config.label)
        self.prompts = prompts_of(self.config, data)
        return data.model_copy(update={"classes": len(self.prompts.names)})

    @property
    def kept(self) -> Kept:
        """As for other measurements; it depends on the files of prompts, too."""
        kept = super().kept
        return dataclasses.replace(kept, files=[*kept.files, *files_of(self.config)])

    def begin(self) -> None:
        self.pipeline = EmbeddingPipeline(self.model, autocast=self.autocast, too_long=self.config.too_long)
        self.tally = ClassifiedTally(len(self.prompts.names))
        self.clean_tally = ClassifiedTally(len(self.prompts.names))
        self.change = change_of(self.config)

    def reads(self) -> Sequence[str]:
        return label_fields(self.config.label)

    def prepare(self) -> None:
        """Embeds the prompts, split among the processes by class."""
        self.vectors = vectors_of(self.pipeline, self.prompts, self.processes)

    def add(self, batch: Batch) -> None:
        label = labels_of(batch, self.config.label, len(self.prompts.names))
        images, index = as_float(batch["image"].to(self.device)), batch["index"]
        with torch.no_grad():
            logits = self._logits(images)
        if self.change is not None:
            self.clean_tally.add(index, label, logits)
            changed = self.change(self._logits, images, label.to(self.device), index.tolist())
            with torch.no_grad():
                logits = self._logits(changed)
        self.tally.add(index, label, logits)

    def _logits(self, images: Tensor) -> Tensor:
        return self.pipeline.scale * self.pipeline.images(images) @ self.vectors.T

    def found(self) -> list[Result]:
        found = self.classified = self.tally.over_ranks()
        classes, n = len(self.prompts.names), len(found.index)
        values = {f"top{k}": _mean_and_error(found.hits(k)) for k in ((1, TOP) if classes > TOP else (1,))}
        values["mean-per-class"] = found.mean_per_class()
        parameters = {**described(self.prompts, self.config.label), **change_parameters(self.config)}
        self.clean = None if self.change is None else float(self.clean_tally.over_ranks().hits(1).mean())
        details = self._details()
        results = [
            self.result(f"zero-shot-{name}", value, error, n, parameters, details)
            for name, (value, error) in values.items()
        ]
        error = expected_calibration_error(found.reliability())
        binned = {**parameters, "bins": BINS}
        return [*results, self.result("expected-calibration-error", error, None, n, binned, {**details, "spread": ""})]

    def _details(self) -> dict[str, Any]:
        given = self.config.templates
        return {
            "templates": given if isinstance(given, str) else list(given),
            "cross_entropy": float(self.classified.cross_entropy.mean()),
            "classes_without_images": int((self.classified.counts() == 0).sum()),
            **({} if self.clean is None else {"top1_unchanged": self.clean}),
        }

    def write(self, out: RunDirectory, loggers: Sequence[Logger]) -> None:
        """Writes `classes.csv`, `confusion.csv` and `calibration.csv`, and the last two as pictures."""
        found, names = self.classified, self.prompts.names
        top_k = (1, TOP) if len(names) > TOP else (1,)
        write_classes(found, top_k, names, out.path / "classes.csv")
        write_confusion(found.confusion(), names, out.path / "confusion.csv")
        plot_confusion(found.confusion(), names, out.path / "confusion.svg")
        write_reliability(found.reliability(), out.path / "calibration.csv")
        plot_reliability(found.reliability(), out.path / "calibration.svg")
        for name in ("confusion", "calibration"):
            log_picture(loggers, f"eval/zero_shot_{name}", out.path / f"{name}.png")

    def remarks(self, results: Sequence[Result]) -> list[str]:
        found, names = self.classified, self.prompts.names
        shares, counts = found.by_class(1), found.counts()
        there = sorted((c for c in range(len(names)) if counts[c]), key=lambda c: (-float(shares[c]), c))
        shown = [f"{names[c]} {float(shares[c]):.3g} of {int(counts[c])}" for c in there]
        lines = [
            f"{len(names)} classes, {len(self.prompts.templates)} prompts of each; guessing gives {1 / len(names):.3g}"
        ]
        if len(shown) > 2 * NAMED:
            lines += [f"best: {', '.join(shown[:NAMED])}", f"worst: {', '.join(shown[: -NAMED - 1 : -1])}"]
        else:
            lines.append(f"by class, best first: {', '.join(shown)}")
        if self.clean is not None:
            lines.append(f"under {changed_in_words(self.config)}; the same images unchanged: top1 {self.clean:.3g}")
        confident = float(found.confidence.mean())
        lines.append(f"mean confidence {confident:.3g}, right in {float(found.hits(1).mean()):.3g}")
        if len(there) < len(names):
            lines.append(f"{len(names) - len(there)} of the classes have no image here")
        if self.prompts.alike:
            lines.append(f"several classes are called {self.prompts.alike[0]!r}, of which the first is always ahead")
        if repeated := self.prompts.repeated:
            lines.append(
                f"{len(repeated)} of the prompts stand there repeatedly, as {repeated[0]!r}, and count for more"
            )
        return lines


def vectors_of(pipeline: EmbeddingPipeline, prompts: Prompts, processes: Processes) -> Tensor:
    """The vector of every class, [classes, dim], computed by all processes together.

    Raises UserError for a prompt that is too long.
    """
    mine = range(processes.rank, len(prompts.names), processes.world_size)
    with processes.agreeing():
        found = class_vectors(pipeline, [prompts.texts[number] for number in mine])
    return in_order(gather_rows(torch.tensor(mine, dtype=torch.int64)), gather_rows(found.cpu()))[1].to(found.device)


def described(prompts: Prompts, label: str) -> dict[str, Any]:
    """What of the prompts affects results, for their protocol."""
    digest = hashlib.sha256(json.dumps(prompts.texts).encode()).hexdigest()[:16]
    return {
        "classes": len(prompts.names),
        "templates": len(prompts.templates),
        "prompts_sha256": digest,
        "label": label,
    }


def _mean_and_error(hits: Tensor) -> tuple[float, float | None]:
    return float(hits.mean()), float(hits.std()) / math.sqrt(len(hits)) if len(hits) > 1 else None


def zero_shot(config: ZeroShotConfig, plain: dict[str, Any], overrides: list[str], machine: Machine) -> Measuring:
    """Zero-shot accuracy on n images. Raises UserError for a model without texts, and for classes without names."""
    with machine.processes.agreeing():
        return Measuring(ZeroShotMeasurement(config, machine), config, plain, overrides)
