"""Linear probes of a model's features, from all labels or a few of each class, beside zero-shot classification."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from difflab.commands.command import Kept, Machine
from difflab.commands.limits import refusing_too_large
from difflab.commands.measurements.images import ImagesMeasurement, log_picture
from difflab.commands.measurements.measuring import Measuring
from difflab.commands.measurements.zero_shot import described, vectors_of
from difflab.config.data import DataConfig
from difflab.config.probe import ProbeConfig
from difflab.errors import UserError
from difflab.metrics.gather import gather_rows
from difflab.metrics.linear_probe import (
    VALIDATION,
    Fitted,
    Labelled,
    crossing,
    drawn,
    few_shot,
    parts,
    require_sklearn,
)
from difflab.metrics.linear_probe import (
    probe as fit_probe,
)
from difflab.metrics.protocol import Result
from difflab.metrics.reference import in_order
from difflab.pipelines.embedding import EmbeddingPipeline
from difflab.pipelines.prompts import (
    Prompts,
    data_with_classes,
    files_of,
    has_names,
    label_fields,
    labels_of,
    prompts_of,
)
from difflab.progress import track
from difflab.tracking.probe import plot_shots, write_shots
from difflab.tracking.rundir import RunDirectory
from difflab.types import Batch

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


@dataclasses.dataclass
class Collected:
    """The images of one split: features, labels and, where classes have names, whether zero-shot is right."""

    indices: list[Tensor] = dataclasses.field(default_factory=list)
    labels: list[Tensor] = dataclasses.field(default_factory=list)
    features: list[Tensor] = dataclasses.field(default_factory=list)
    zero_shot: list[Tensor] = dataclasses.field(default_factory=list)

    def over_ranks(self, split: str) -> tuple[Labelled, np.ndarray]:
        """All images in order, and whether zero-shot is right. Called by all processes together."""
        none = torch.zeros(0, dtype=torch.int64)
        index = gather_rows(torch.cat([none, *self.indices]))
        if not len(index):
            raise UserError(f"no image of the split {split} was readable: repair the data set or choose another one")
        features = torch.cat(self.features) if self.features else torch.zeros(0, 0)
        gathered = (gather_rows(torch.cat([none, *rows])) for rows in (self.labels, self.zero_shot))
        labels, right = (in_order(index, rows)[1].numpy() if len(rows) else rows.numpy() for rows in gathered)
        return Labelled(in_order(index, gather_rows(features))[1].double().numpy(), labels), right.astype(bool)


class ProbeMeasurement(ImagesMeasurement[ProbeConfig]):
    """`probe-top1`, or `probe-<k>-shot-top1` for each number of shots. If classes have names, `zero-shot-top1` on the
    same images, and `shots-of-zero-shot`, the examples per class at which a probe is as good."""

    kind = "probe"
    what = "features"
    method = ("train_split", "train_n", "shots", "draws", "templates", "class_names", "label", "too_long")

    prompts: Prompts | None = None
    vectors: Tensor | None = None
    fitted: dict[int | None, list[Fitted]]
    zero_shot: float | None = None
    crossed: float | None = None
    untrained: list[int]

    def __init__(self, config: ProbeConfig, machine: Machine) -> None:
        require_sklearn()
        super().__init__(config, machine)
        self.train_images = self.images_of(config.train_split, config.train_n, "train_n")

    def read_as(self, data: DataConfig) -> DataConfig:
        data = data_with_classes(data, self.config.label)
        if has_names(self.config, data):
            self.prompts = prompts_of(self.config, data)
            data = data.model_copy(update={"classes": len(self.prompts.names)})
        if data.classes is None:
            raise UserError("the data has no classes: give data.classes=..., the number of its labels")
        self.classes = data.classes
        return data

    def begin(self) -> None:
        self.pipeline = EmbeddingPipeline(self.model, autocast=self.autocast, too_long=self.config.too_long)
        self.collected = Collected()

    def reads(self) -> Sequence[str]:
        return label_fields(self.config.label)

    @property
    def kept(self) -> Kept:
        """As for other measurements; it depends on the training images and the files of prompts, too."""
        kept, train = super().kept, self.train_images.content_hash
        return dataclasses.replace(kept, files=[*kept.files, *files_of(self.config)], content=[*kept.content, train])

    def prepare(self) -> None:
        """Embeds the prompts."""
        if self.prompts is not None:
            self.vectors = vectors_of(self.pipeline, self.prompts, self.processes)

    def add(self, batch: Batch) -> None:
        self._collect(self.collected, batch)

    def _collect(self, collected: Collected, batch: Batch) -> None:
        label = labels_of(batch, self.config.label, self.classes)
        with torch.no_grad():
            features, embeddings = self.pipeline.image_features(batch["image"])
        collected.indices.append(batch["index"].cpu())
        collected.labels.append(label)
        collected.features.append(features.cpu())
        if self.vectors is not None:
            logits = (embeddings @ self.vectors.T).cpu()
            # Of equal ones the first, as for `difflab zero-shot`.
            found = (logits == logits.amax(dim=1, keepdim=True)).int().argmax(dim=1)
            collected.zero_shot.append((found == label).long())

    def found(self) -> list[Result]:
        evaluation, right = self.collected.over_ranks(self.config.split)
        train = self._training_images()
        self.untrained = np.setdiff1d(evaluation.labels, train.labels).tolist()
        # Every process has all features, and the fit is small: the first does it for all.
        self.fitted = self.processes.from_first(lambda: self._fitted(train, evaluation))
        self.results_found = self._results(len(train.labels), len(evaluation.labels), right)
        return self.results_found

    def _training_images(self) -> Labelled:
        config, collected = self.config, Collected()
        count = self.train_images.total if config.train_n is None else config.train_n
        batches = self.batches_of(self.train_images.batches(config.train_n), count, f"features of {config.train_split}")
        with self.processes.agreeing(), refusing_too_large(f"batch_size={config.batch_size}"):
            for batch in batches:
                if len(batch["index"]):
                    self._collect(collected, batch)
        return collected.over_ranks(config.train_split)[0]

    def _fitted(self, train: Labelled, evaluation: Labelled) -> dict[int | None, list[Fitted]]:
        config = self.config
        fitting, validating = parts(train.labels, config.seed)
        if not len(validating):
            raise UserError(f"every class has one image in {config.train_split}: none is left to choose the penalty")
        validation, rest = train.rows(validating), train.rows(fitting)
        if config.shots is None:
            return {None: [fit_probe(rest, validation, evaluation)]}
        self._refuse_few(rest.labels, max(config.shots))
        found: dict[int | None, list[Fitted]] = {}
        for shots in track(sorted(config.shots), len(config.shots), "probes"):
            draws = [drawn(rest.labels, shots, number, config.seed) for number in range(config.draws)]
            found[shots] = few_shot(rest, validation, evaluation, draws)
        return found

    def _refuse_few(self, labels: np.ndarray, shots: int) -> None:
        counts = {int(label): int((labels == label).sum()) for label in np.unique(labels)}
        few = min(counts, key=lambda label: (counts[label], label))
        if counts[few] < shots:
            raise UserError(
                f"shots={shots}, but class {self._named(few)} has {counts[few]} images in {self.config.train_split} "
                f"besides those that choose the penalty: give shots up to {counts[few]}, or a larger train_n"
            )

    def _named(self, label: int) -> str:
        return str(label) if self.prompts is None else repr(self.prompts.names[label])

    def _results(self, train_n: int, n: int, right: np.ndarray) -> list[Result]:
        config = self.config
        common: dict[str, Any] = {
            "train": self.train_images.content_hash,
            "train_split": self.train_images.split,
            "train_n": train_n,
            "label": config.label,
            "validation": f"1/{VALIDATION}",
        }
        results = [self._result(shots, fits, n, common) for shots, fits in self.fitted.items()]
        if self.prompts is None:
            return results
        self.zero_shot = float(right.mean())
        error = _error(right)
        prompted = described(self.prompts, config.label)
        results.append(self.result("zero-shot-top1", self.zero_shot, error, n, prompted, {}))
        if config.shots is not None:
            means = {shots: mean for shots, (mean, _) in self.curve().items()}
            self.crossed = crossing(list(means), list(means.values()), self.zero_shot)
            if self.crossed is not None and self.crossed > min(means):
                both = {**common, **prompted, "shots": sorted(means), "draws": config.draws}
                results.append(self.result("shots-of-zero-shot", self.crossed, None, n, both, {"spread": ""}))
        return results

    def _result(self, shots: int | None, fits: Sequence[Fitted], n: int, common: dict[str, Any]) -> Result:
        penalty: dict[str, Any] = {"lambda": fits[0].penalty}
        if not all(fit.converged for fit in fits):
            penalty["converged"] = False
        if shots is None:
            (fit,) = fits
            return self.result("probe-top1", float(fit.right.mean()), _error(fit.right), n, common, penalty)
        mean, spread = self.curve()[shots]
        details = {
            **penalty,
            "spread": "standard deviation over the draws",
            "draws": [float(fit.right.mean()) for fit in fits],
        }
        parameters = {**common, "shots": shots, "draws": len(fits)}
        return self.result(f"probe-{shots}-shot-top1", mean, spread, n, parameters, details)

    def curve(self) -> dict[int, tuple[float, float | None]]:
        """The mean accuracy, and its standard deviation over the draws, by number of shots."""
        found = {}
        for shots, fits in self.fitted.items():
            if shots is not None:
                each = [float(fit.right.mean()) for fit in fits]
                found[shots] = float(np.mean(each)), float(np.std(each, ddof=1)) if len(each) > 1 else None
        return found

    def write(self, out: RunDirectory, loggers: Sequence[Logger]) -> None:
        """With shots, writes `shots.csv` and the same as a picture."""
        if self.config.shots is not None:
            write_shots(self.curve(), out.path / "shots.csv")
            plot_shots(self.curve(), self.zero_shot, out.path / "shots.svg")
            log_picture(loggers, "eval/probe_shots", out.path / "shots.png")

    def remarks(self, results: Sequence[Result]) -> list[str]:
        lines = [
            f"lambda {fits[0].penalty:.3g}, chosen on 1 in {VALIDATION} of the training images"
            + ("" if shots is None else f", from {shots} of each class")
            + ("" if all(fit.converged for fit in fits) else "; the optimizer did not converge")
            for shots, fits in self.fitted.items()
        ]
        if self.untrained:
            lines.append(
                f"{len(self.untrained)} of the classes have no image in {self.config.train_split}, as "
                f"{self._named(self.untrained[0])}: a probe never finds them"
            )
        if self.zero_shot is None:
            return [*lines, "no zero-shot accuracy beside it: the data does not name its classes, give class_names=..."]
        if self.config.shots is None:
            return [*lines, f"zero-shot, without a label: {self.zero_shot:.3g}"]
        return [*lines, self._crossing_in_words(self.zero_shot)]

    def _crossing_in_words(self, level: float) -> str:
        shots = list(self.curve())
        if self.crossed is None:
            return f"no probe reaches zero-shot, {level:.3g}: its {max(shots)} examples per class are too few"
        if self.crossed <= min(shots):
            return f"{min(shots)} examples per class already reach zero-shot, {level:.3g}"
        return f"zero-shot, {level:.3g}, equals a probe from {self.crossed:.3g} examples per class"


def _error(right: np.ndarray) -> float | None:
    return float(right.std(ddof=1)) / math.sqrt(len(right)) if len(right) > 1 else None


def probe(config: ProbeConfig, plain: dict[str, Any], overrides: list[str], machine: Machine) -> Measuring:
    """Probes on n images. Raises UserError for a model without features to probe, and for data without classes."""
    with machine.processes.agreeing():
        return Measuring(ProbeMeasurement(config, machine), config, plain, overrides)
