"""Measurements of a stored model on real images: each once, with noise determined by its index in the split."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from difflab.commands.command import Kept, Machine
from difflab.commands.limits import refusing_too_large
from difflab.commands.processes import Processes
from difflab.config.data import DataConfig
from difflab.config.model import Measurement as Measured
from difflab.config.work import MeasuringImagesConfig
from difflab.data.reading import MissingFieldError
from difflab.data.shard_names import as_word
from difflab.devices import choose_arithmetic
from difflab.errors import UserError
from difflab.metrics.protocol import Protocol, ReferenceRecord, Result, software_versions
from difflab.metrics.reference import DataReference, shards_reference
from difflab.pipelines.measuring import refuse_other_images, require_measured
from difflab.pipelines.stored import Stored, find_stored
from difflab.progress import track
from difflab.tasks.build import Model
from difflab.tracking.job import Job
from difflab.tracking.rundir import RunDirectory
from difflab.types import Batch

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

ConfigT = TypeVar("ConfigT", bound=MeasuringImagesConfig)

MEASURED_WITH = ("data", "split", "seed", "weights", "precision")
"""Keys, besides n, that identify a measurement of any kind."""


class ImagesMeasurement(ABC, Generic[ConfigT]):
    """Base of measurements on real images (see `difflab.commands.measurements.base.Measurement`).

    kind: the name of the measurement and its command. what: its name in the progress line.
    method: the keys that only this kind has and that change its results.

    Raises UserError if the model does not support this kind, or does not fit the data.
    """

    kind: ClassVar[Measured]
    what: ClassVar[str]
    method: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ConfigT, machine: Machine) -> None:
        assert config.run is not None, "the configuration requires a run"
        self.config = config
        self.processes: Processes = machine.processes
        require_measured(config.run, find_stored(config.run, "auto").config, self.kind)
        self.model: Model
        self.stored: Stored
        self.model, self.stored = machine.models.stored(config.run, config.weights)
        self.autocast = torch.bfloat16 if config.precision == "bf16-mixed" else None
        self.compilation = machine.compilation(config.compile, config.n, config.batch_size)
        data = self.read_as(_data_of(config, self.stored))
        self.begin()
        self.refuse_data(data)
        fields = list(dict.fromkeys([*data.fields, *self.reads()]))
        self.data = data.model_copy(update={"fields": fields})
        self.images = self.images_of(config.split, config.n)

    # -- what each kind defines --------------------------------------------------------------------------------------

    @abstractmethod
    def begin(self) -> None:
        """Prepares the measurement. Raises UserError if the model lacks what it needs."""

    @abstractmethod
    def reads(self) -> Sequence[str]:
        """The fields of the data that are read besides the image."""

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Measures a batch of images of this process."""

    @abstractmethod
    def found(self) -> list[Result]:
        """The results over all processes, called by all of them together."""

    def read_as(self, data: DataConfig) -> DataConfig:
        """How the data is read: as configured, unless a kind overrides it."""
        return data

    def refuse_data(self, data: DataConfig) -> None:
        """Raises UserError if the images or classes do not match those of the model."""
        refuse_other_images(self.model, data)

    def identified_by(self) -> dict[str, Any]:
        """What identifies a measurement besides its keys, as plain values."""
        return {}

    # -- what all share -------------------------------------------------------------------------------------------

    @property
    def kept(self) -> Kept:
        """`<run>/evaluations/likelihood-val-n256-3fa2c1`: the last part hashes everything that changes the results."""
        counting = {*MEASURED_WITH, *self.method} - self.config.without_effect
        how = {**self.config.model_dump(mode="json", include=counting), **self.identified_by()}
        if self.stored.path.is_file():
            how["checkpoint"] = self.stored.path.name
        digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()
        name = f"{self.kind.replace('_', '-')}-{self.label}-n{self.config.n}-{digest[:6]}"
        return Kept(self.stored.home / "evaluations", name, [self.stored.weights], [self.images.content_hash])

    @property
    def label(self) -> str:
        """The label of the results, besides n."""
        return as_word(self.config.split)

    @property
    def also_kept_in(self) -> Path:
        """The run's own file of records."""
        return self.stored.home / "evaluations.jsonl"

    @property
    def device(self) -> torch.device:
        return next(self.model.network.parameters()).device

    def prepare(self) -> None:
        """Does nothing."""

    def results(self) -> list[Result]:
        """Measures all images, split among the processes."""
        config = self.config
        choose_arithmetic(self.device, config.precision)
        with self.processes.agreeing(), refusing_too_large(f"batch_size={config.batch_size}"):
            for batch in self.batches():
                if len(batch["index"]):
                    self.add(batch)
        return self.found()

    def batches(self) -> Iterator[Batch]:
        """The images that are measured, of this process."""
        return self.batches_of(self.images.batches(self.config.n), self.config.n, self.what)

    def batches_of(self, batches: Iterable[Batch], n: int, what: str) -> Iterator[Batch]:
        """This process's share of n images without padding, with a progress line."""
        size = self.config.batch_size * self.processes.world_size
        line = f"{what} of {n} images, batches of {size}"
        for batch in track(batches, -(-n // size), line) if self.processes.is_main else batches:
            yield _rows_of(batch, batch["weight"] > 0)

    def result(
        self,
        metric: str,
        value: float,
        spread: float | None,
        n: int,
        parameters: dict[str, Any],
        details: dict[str, Any],
    ) -> Result:
        """A result on n images with its protocol. parameters: the kind's own, besides the common ones."""
        common = {
            "seed": self.config.seed,
            "weights": self.stored.which,
            "precision": "float32" if self.autocast is None else str(self.autocast).removeprefix("torch."),
            "device": self.device.type,
        }
        reference = ReferenceRecord(
            name=self.images.name,
            content_hash=self.images.content_hash,
            split=self.images.split,
            preparation=self.images.preparation,
            n=n,
        )
        missing = self.config.n - n
        return Result(
            metric=metric,
            value=value,
            spread=spread,
            protocol=Protocol(
                metric=metric,
                n=n,
                parameters={**parameters, **common},
                reference=reference,
                label=self.label,
                versions=software_versions(),
            ),
            details={
                "spread": "standard error of the mean over the images",
                "compiled": self.compilation.used,
                **details,
            },
            warnings=[f"{missing} of {self.config.n} images could not be read and are left out"] if missing else [],
        )

    def images_of(self, split: str, n: int | None, key: str = "n") -> DataReference:
        """The images of a split, of which this process reads its share; n of them, by this key, or None for all.

        Raises UserError if there are fewer, or if they lack a field that is read.
        """
        processes, data = self.processes, self.data
        size = self.config.batch_size * processes.world_size
        try:
            images = shards_reference(
                data, split, batch_size=size, rank=processes.rank, world_size=processes.world_size
            )
        except MissingFieldError as error:
            if error.field not in self.reads():
                raise
            command = self.kind.replace("_", "-")
            raise UserError(f"{error.why}, which `difflab {command}` needs: give it data with them") from None
        if n is not None and n > images.total:
            raise UserError(
                f"{key}={n}, but the split {split} of {images.name} has {images.total} images: "
                f"give {key}={images.total} or less, or another split"
            )
        return images

    def described(self) -> dict[str, Any]:
        return {"model": self.stored.config.model_dump(mode="json")}

    def job(self, out: RunDirectory, identity: Any) -> Job:
        return Job.measuring(self.kind.replace("_", "-"), self.stored, out, identity)

    def write(self, out: RunDirectory, loggers: Sequence[Logger]) -> None:
        """Writes nothing, unless a kind overrides it."""

    def remarks(self, results: Sequence[Result]) -> list[str]:
        return []


def log_picture(loggers: Sequence[Any], key: str, path: Path) -> None:
    """Logs an image with the loggers that support images."""
    from PIL import Image

    from difflab.tracking.clock import ClockedLogger

    for logger in loggers:
        if isinstance(logger, ClockedLogger):
            logger.log_image(key, Image.open(path))


def _data_of(config: MeasuringImagesConfig, stored: Stored) -> DataConfig:
    data = config.data or (None if stored.train is None else stored.train.data)
    if data is None:
        raise UserError(f"run={config.run} does not record its training data: give a data set, as in data.path=...")
    return data


def _rows_of(batch: Batch, chosen: Tensor) -> Batch:
    kept = chosen.nonzero()[:, 0].tolist()
    return {
        key: value[chosen] if isinstance(value, Tensor) else [value[row] for row in kept]
        for key, value in batch.items()
    }
