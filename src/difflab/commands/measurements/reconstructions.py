"""Metrics of reconstructions: real images after an autoencoder, each beside its original."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from difflab.commands.command import Kept, Machine
from difflab.commands.limits import main_memory, require_memory
from difflab.commands.measurements.images import ImagesMeasurement, log_picture
from difflab.commands.measurements.measuring import Measuring
from difflab.config.data import DataConfig
from difflab.config.metrics import MetricsConfig
from difflab.config.reconstructions import EvaluateReconstructionsConfig
from difflab.console import say_on_stderr
from difflab.data.bad_samples import BadSample
from difflab.data.build import build_dataset, spread_evenly
from difflab.data.reading import MissingFieldError
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.extractors.base import FeatureExtractor
from difflab.metrics.gather import gather_objects, gather_rows
from difflab.metrics.oracle_results import no_shapes
from difflab.metrics.paired import Pairs
from difflab.metrics.protocol import ReconstructionRecord, ReferenceRecord, Result
from difflab.metrics.reference import DataReference, ReferenceStatistics
from difflab.metrics.similarity import peak_signal_noise_ratio
from difflab.metrics.suiting import refuse_others, without, without_unsuited
from difflab.pipelines.reconstructing import ReconstructionPipeline, refuse_unencodable
from difflab.tracking.grid import make_grid, save_picture
from difflab.tracking.job import Job, trained_name
from difflab.tracking.rundir import RunDirectory
from difflab.types import Batch

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

PICTURE = "reconstructions.png"
COLUMNS = 8


class ReconstructionsMeasurement(ImagesMeasurement[EvaluateReconstructionsConfig]):
    """The metrics of the configuration, of the reconstructions of n images of a split.

    Distances compare them with their originals: with these n images, or with as many as `reference_n` of the metric.
    """

    kind = "reconstructions"
    what = "reconstruction"
    method = ("posterior", "tiled", "tile", "rounding", "metrics")

    pipeline: ReconstructionPipeline
    metrics: MetricsConfig
    left_out: list[str]
    has_scenes: bool

    def __init__(self, config: EvaluateReconstructionsConfig, machine: Machine, overrides: Sequence[str]) -> None:
        self.overrides = overrides
        super().__init__(config, machine)
        data, images = self.data, self.images
        record = ReferenceRecord(
            name=images.name,
            content_hash=images.content_hash,
            split=images.split,
            preparation=images.preparation,
            n=config.n,
        )
        self.evaluator = Evaluator(
            self.metrics,
            n=config.n,
            reference=_Originals(images, config.n),
            sampling=self._record(),
            device=self.device,
            pairs=Pairs(shape=(data.channels, data.image_size, data.image_size)),
            originals=record,
            label=self.label,
        )
        self.evaluator.load_extractors()
        needed = config.n * self.evaluator.bytes_per_sample(data.channels * data.image_size**2)
        require_memory(f"n={config.n}: what the metrics keep of the images", needed, main_memory(), "lower n")
        self._numbers = {int(index): number for number, index in enumerate(spread_evenly(config.n, images.total))}
        self._seen: list[Tensor] = [torch.zeros(0, dtype=torch.int64)]
        self._shown: dict[int, tuple[Tensor, str]] = {}

    def read_as(self, data: DataConfig) -> DataConfig:
        self._data = data
        return data

    def begin(self) -> None:
        config, data = self.config, self._data
        tile = config.tile if config.tiled else None
        self.pipeline = pipeline = ReconstructionPipeline(
            self.model, config.posterior, tile, config.rounding, self.autocast
        )
        refuse_others(config.metrics, "reconstructions")
        suited, unread = without_unsuited(config.metrics, data, self.overrides, image_size=data.image_size)
        self.metrics, missing = without(
            suited, self.overrides, lambda metric: metric.unsuited_latents(pipeline.codes, pipeline.diverges)
        )
        self.left_out = [*unread, *missing]
        self.has_scenes = no_shapes(data, data.image_size) is None and _has_scenes(data, config.split)

    def refuse_data(self, data: DataConfig) -> None:
        refuse_unencodable(self.pipeline, data)

    def reads(self) -> Sequence[str]:
        return ("json",) if self.has_scenes else ()

    @property
    def kept(self) -> Kept:
        """As for other measurements; it depends on the files of the metrics, too."""
        kept = super().kept
        files = [path for metric in self.evaluator.metrics.values() for path in metric.files]
        return dataclasses.replace(kept, files=[*kept.files, *files])

    def identified_by(self) -> dict[str, Any]:
        # Several runs may be measured into one folder.
        return {"trained": trained_name(self.stored)}

    def prepare(self) -> None:
        """Says which metrics are left out, and computes the statistics of the originals that are not in the cache."""
        if self.processes.is_main:
            for line in self.left_out:
                say_on_stderr(f"note: {line}")
        self.evaluator.prepare()

    def add(self, batch: Batch) -> None:
        made, made_of = self.pipeline(batch, self.config.seed)
        number = torch.tensor([self._numbers[index] for index in batch["index"].tolist()])
        self.evaluator.update(made, number, made_of=made_of)
        self._seen.append(number)
        self._show(batch["index"], number, made, made_of.originals)

    def found(self) -> list[Result]:
        there = gather_rows(torch.cat(self._seen))
        self._shown = {number: one for part in gather_objects(self._shown) for number, one in part.items()}
        results = self.evaluator.compute(there)
        missing = self.config.n - len(there)
        if missing:
            line = f"{missing} of {self.config.n} images could not be read and are left out"
            results = [result.model_copy(update={"warnings": [*result.warnings, line]}) for result in results]
        return results

    def described(self) -> dict[str, Any]:
        return {**super().described(), "sampling": self._record().model_dump(mode="json")}

    def job(self, out: RunDirectory, identity: Any) -> Job:
        return Job.measuring("evaluate", self.stored, out, identity)

    def write(self, out: RunDirectory, loggers: Sequence[Logger]) -> None:
        """Writes `reconstructions.png`, the first images above their reconstructions."""
        if not self._shown:
            return
        tiles, labels = zip(*(self._shown[number] for number in sorted(self._shown)), strict=True)
        save_picture(make_grid(torch.stack(tiles), COLUMNS, min_side=64, labels=labels), out.path / PICTURE)
        log_picture(loggers, "eval/reconstructions", out.path / PICTURE)

    def remarks(self, results: Sequence[Result]) -> list[str]:
        lines = [line for metric in self.evaluator.metrics.values() for line in metric.in_words(results)]
        return lines + ([f"originals above their reconstructions: {PICTURE}"] if self._shown else [])

    def _record(self) -> ReconstructionRecord:
        config, pipeline = self.config, self.pipeline
        return ReconstructionRecord(
            posterior=config.posterior,
            seed=config.seed if config.posterior == "sample" else None,
            tile=pipeline.tile,
            weights=self.stored.which,
            rounding=config.rounding,
            precision=str(self.autocast or torch.float32).removeprefix("torch."),
            device=self.device.type,
        )

    def _show(self, index: Tensor, number: Tensor, made: Tensor, originals: Tensor) -> None:
        """Keeps what the picture shows of a batch."""
        for place, shown in enumerate(number.tolist()):
            if shown < self.config.pictures:
                psnr = float(peak_signal_noise_ratio(made[place][None], originals[place][None]))
                quality = "identical" if math.isinf(psnr) else f"{psnr:.1f} dB"
                both = torch.cat([originals[place], made[place]], dim=1).cpu()
                self._shown[shown] = both, f"{int(index[place])}: {quality}"


@dataclasses.dataclass(frozen=True)
class _Originals:
    """The images that reconstructions are of, as the reference of distances: n unless a metric asks for others."""

    images: DataReference
    n: int

    @property
    def content_hash(self) -> str:
        return self.images.content_hash

    def statistics(self, extractor: FeatureExtractor, n: int | None = None) -> ReferenceStatistics:
        return self.images.statistics(extractor, self.n if n is None else n)


def _has_scenes(data: DataConfig, split: str) -> bool:
    """Whether shapes data records what each image shows."""
    try:
        dataset = build_dataset(data.model_copy(update={"fields": ["json"]}), split=data.split_called(split))
        return {"objects", "background"} <= dataset.sample(0, image=False)["json"].keys()
    except (MissingFieldError, BadSample):
        return False


def of_autoencoder(
    config: EvaluateReconstructionsConfig, plain: dict[str, Any], overrides: list[str], machine: Machine
) -> Measuring:
    """The metrics of n reconstructions. Raises UserError if the model makes none, or if they cannot be measured."""
    with machine.processes.agreeing():
        return Measuring(ReconstructionsMeasurement(config, machine, overrides), config, plain, overrides)
