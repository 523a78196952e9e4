"""`difflab evaluate samples=...`: pictures that are made already, ready to be judged as drawn ones are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from difflab.commands.command import Kept
from difflab.commands.measurements.folder_classes import FolderClasses, folder_classes
from difflab.commands.measurements.originals import pairs_of_given
from difflab.commands.processes import Processes
from difflab.commands.shares import shares
from difflab.config.metrics import MetricsConfig
from difflab.config.sample import EvaluateSamplesConfig
from difflab.console import printable
from difflab.errors import UserError
from difflab.metrics.base import SampleFacts
from difflab.metrics.paired import Pairs, have_pairs
from difflab.metrics.protocol import GivenRecord
from difflab.pipelines.evaluating import classes_are_read, refuse_unfit_samples
from difflab.requests.archives import ArchivePictures
from difflab.requests.drawings import RECORD
from difflab.requests.images import FolderPictures
from difflab.types import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from difflab.config.data import DataConfig
    from difflab.tracking.job import Job
    from difflab.tracking.rundir import RunDirectory

FIELD = "image"
HASHED_AT_ONCE = 64
"""Pictures that are read together to be hashed."""


@dataclass(frozen=True)
class GivenSamples:
    """The first `n` pictures of a folder or an archive, in their order; this process judges its share of them.

    name: of the folder or archive. content_hash: see `GivenRecord`. highest: the highest class among them, None where
    nothing says what they show. shown: the classes that the folders of a folder tell.
    """

    pictures: ArchivePictures | FolderPictures
    path: Path
    n: int
    content_hash: str
    highest: int | None
    shown: FolderClasses
    config: EvaluateSamplesConfig
    processes: Processes
    device: torch.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture."""
        height, width = self.pictures.size
        return self.pictures.channels, height, width

    @property
    def also_kept_in(self) -> None:
        """No run has a file for their records."""
        return None

    def batches(self) -> Iterator[tuple[Batch, Tensor]]:
        """(number and, where they have one, class; uint8 [b, C, H, W]) of this process."""
        for chunk in shares(self.processes, self.n, self.config.batch_size, f"judging {self.n} images"):
            batch = self.shown.added(self.pictures(chunk, 0))
            # An archive has its channels last: on other strides a convolution rounds in another way.
            yield batch, batch.pop(FIELD).contiguous()

    def sampling(self) -> GivenRecord:
        """Which pictures they are; how they were made is not known."""
        return GivenRecord(name=self.path.name, content_hash=self.content_hash)

    def described(self) -> dict[str, Any]:
        """Which pictures they are."""
        return {"sampling": self.sampling().model_dump(mode="json")}

    def job(self, out: RunDirectory, identity: Any) -> Job:
        """The tracker's run of an evaluation, in a group of the pictures' name."""
        from difflab.tracking.job import LONGEST, Job

        pictures = {"content_hash": self.content_hash}
        return Job(out.name[:LONGEST], "evaluate", self.path.name[:LONGEST], identity=[identity, pictures])

    def pairs(self, metrics: MetricsConfig) -> Pairs:
        """The images of the data split that the pictures were made of, where that is known or said.

        Raises UserError where there are more pictures than images.
        """
        return pairs_of_given(self.config, self.path, self.n, self.shape) if have_pairs(metrics) else Pairs()

    def class_names(self, of_data: Sequence[str] | None) -> Sequence[str] | None:
        """What the classes of the pictures are called, by the data set or else by their folders."""
        return self.shown.names if of_data is None else of_data

    def check(self, metrics: MetricsConfig, class_names: Sequence[str] | None) -> None:
        """Raises UserError where a metric looks for classes and pictures show one that the data has not, and where one
        says nothing of such pictures."""
        unlabelled = self.shown.why_none if self.highest is None else None
        refuse_unfit_samples(metrics, SampleFacts(self.shape, None, class_names, unlabelled, self.highest))
        name = classes_are_read(metrics)
        if name is None or class_names is None or self.highest is None or self.highest < len(class_names):
            return
        raise UserError(
            f"samples={self.config.samples}: arr_1 has class {self.highest}, and the data set names "
            f"{len(class_names)}, 0..{len(class_names) - 1}: give the data that the pictures show, or set "
            f"metrics.{name}=null"
        )

    @property
    def kept(self) -> Kept:
        """`evaluations` beside the pictures, and `<name>-<hash>-n<n>`.

        Beside a folder, or an archive; of one that `difflab sample` wrote among its pictures, beside that folder.
        The hash is of the pictures and of what they are measured with.
        """
        place = self.path.parent
        if (place / RECORD).is_file():
            place = place.parent
        how = self.config.model_dump(mode="json", include={"metrics", "data", "split"})
        text = json.dumps({**how, "samples": self.content_hash}, sort_keys=True)
        name = "-".join(self.path.relative_to(place).parts)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Kept(place / "evaluations", f"{name}-{digest[:6]}-n{self.n}", content=[self.content_hash])


def given_samples(config: EvaluateSamplesConfig, processes: Processes, device: torch.device) -> GivenSamples:
    """The pictures, of which this process judges its share. All processes call it together.

    Raises UserError where there are none, and where they are not as the data set that they are compared with.
    """
    with processes.agreeing():
        pictures, path, n = open_samples(config)
        shown = folder_classes(pictures, class_names_of_data(config.data))
    # What all of them are takes reading all of them, which one process does for the others.
    digest, highest = processes.from_first(lambda: _read_through(pictures, shown, n, _shown(config)))
    return GivenSamples(pictures, path, n, digest, highest, shown, config, processes, device)


def class_names_of_data(data: DataConfig | None) -> list[str] | None:
    """What the classes are called, where the data set is there to say it; not every metric needs it to be."""
    from difflab.data.build import class_names_of

    return class_names_of(data) if data is not None and Path(data.path).exists() else None


def open_samples(config: EvaluateSamplesConfig) -> tuple[ArchivePictures | FolderPictures, Path, int]:
    """The pictures, where they lie, and how many of them are judged. Raises UserError as given_samples does."""
    path = Path(config.samples)
    path = path.resolve() if ".." in path.parts else path.absolute()
    pictures = _pictures(config, path)
    shown = _shown(config)
    if config.n is not None and config.n > len(pictures):
        there = f"{len(pictures)} image{'' if len(pictures) == 1 else 's'}"
        raise UserError(f"n={config.n}, but {shown} holds {there}: leave n out, or give n={len(pictures)} or less")
    _refuse_other_images(config, pictures, shown)
    return pictures, path, config.n or len(pictures)


def _shown(config: EvaluateSamplesConfig) -> str:
    return f"samples={printable(config.samples)}"


def _pictures(config: EvaluateSamplesConfig, path: Path) -> ArchivePictures | FolderPictures:
    shown = _shown(config)
    if path.is_file():
        return ArchivePictures(FIELD, path, None, key="samples")
    if not path.is_dir():
        raise UserError(f"{shown} does not exist: give an archive (.npz) or a folder of images")
    alpha = "white" if config.data is None else config.data.alpha
    return FolderPictures(FIELD, path, None, alpha=alpha, key="samples")


def _refuse_other_images(config: EvaluateSamplesConfig, pictures: ArchivePictures | FolderPictures, shown: str) -> None:
    """Raises UserError unless the pictures have the size and the channels of the data."""
    data, (height, width) = config.data, pictures.size
    if data is None:
        return
    if (height, width) != (data.image_size, data.image_size):
        crop = "with data.crop=adm, edm or resize_short where the data set has another size"
        own = f"set data.image_size={width} ({crop}), or resize" if width == height else "cut and resize"
        raise UserError(
            f"{shown} holds {width}x{height} images and data.image_size={data.image_size}: {own} the samples; "
            "nothing is resized here, because that changes the numbers"
        )
    if pictures.channels != data.channels:
        kinds = {1: "gray", 3: "RGB"}
        raise UserError(
            f"{shown} holds {kinds[pictures.channels]} images and data.channels={data.channels}: set "
            f"data.channels={pictures.channels}, or give {kinds[data.channels]} samples"
        )


def _read_through(
    pictures: ArchivePictures | FolderPictures, classes: FolderClasses, n: int, shown: str
) -> tuple[str, int | None]:
    """The hash of the first n pictures and their classes, and the highest of these."""
    digest = hashlib.sha256(json.dumps([n, pictures.channels, *pictures.size]).encode())
    highest: int | None = None
    for first in range(0, n, HASHED_AT_ONCE):
        try:
            batch = classes.added(pictures(range(first, min(n, first + HASHED_AT_ONCE)), 0))
        except UserError as error:
            raise UserError(f"{shown}: {error} (mend or remove it)") from None
        digest.update(batch[FIELD].contiguous().numpy().tobytes())
        label = batch.get("label")
        if isinstance(label, Tensor):
            digest.update(label.numpy().tobytes())
            highest = max(int(label.max()), -1 if highest is None else highest)
    return digest.hexdigest(), highest
