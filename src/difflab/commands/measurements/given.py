"""`difflab evaluate samples=...`: existing images, evaluated like those that a model generates."""

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
from difflab.metrics.build import build_metrics
from difflab.metrics.paired import Pairs, have_pairs
from difflab.metrics.protocol import GivenRecord
from difflab.pipelines.evaluating import classes_are_read, refuse_unfit_samples
from difflab.requests.archives import ArchivePictures
from difflab.requests.base import Listed
from difflab.requests.captions import listed_captions
from difflab.requests.drawings import RECORD
from difflab.requests.images import FolderPictures
from difflab.types import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from difflab.config.data import DataConfig
    from difflab.tracking.job import Job
    from difflab.tracking.rundir import RunDirectory

FIELD = "image"
UNCAPTIONED = "the samples have none: give them in order, as in prompts=['a red circle',...] or prompts=FILE.txt"
HASHED_AT_ONCE = 64
"""The number of images that are read and hashed at a time."""


@dataclass(frozen=True)
class GivenSamples:
    """The first `n` images of a folder or an archive, in order; this process evaluates its share of them.

    name: of the folder or archive. content_hash: see `GivenRecord`. highest: the highest class among them, None if
    their classes are not known. shown: the classes by subfolder. captions: their captions, None if not known.
    """

    pictures: ArchivePictures | FolderPictures
    path: Path
    n: int
    content_hash: str
    highest: int | None
    shown: FolderClasses
    captions: Listed | None
    config: EvaluateSamplesConfig
    processes: Processes
    device: torch.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        height, width = self.pictures.size
        return self.pictures.channels, height, width

    @property
    def also_kept_in(self) -> None:
        """None: there is no run with a file of records."""
        return None

    def batches(self) -> Iterator[tuple[Batch, Tensor]]:
        """Yields (index and, if known, class; uint8 [b, C, H, W]) of this process."""
        for chunk in shares(self.processes, self.n, self.config.batch_size, f"judging {self.n} images"):
            batch = self.shown.added(self.pictures(chunk, 0))
            if self.captions is not None:
                batch |= self.captions(chunk, 0)
            # Archives are channels-last, and with other strides a convolution rounds differently.
            yield batch, batch.pop(FIELD).contiguous()

    def sampling(self) -> GivenRecord:
        """The record that identifies the images; how they were generated is not known."""
        return GivenRecord(name=self.path.name, content_hash=self.content_hash)

    def described(self) -> dict[str, Any]:
        """Identifies the images."""
        return {"sampling": self.sampling().model_dump(mode="json")}

    def job(self, out: RunDirectory, identity: Any) -> Job:
        """The tracker's run for an evaluation, in a group named after the images."""
        from difflab.tracking.job import LONGEST, Job

        pictures = {"content_hash": self.content_hash}
        return Job(out.name[:LONGEST], "evaluate", self.path.name[:LONGEST], identity=[identity, pictures])

    def pairs(self, metrics: MetricsConfig) -> Pairs:
        """The originals of the images in the data split, if recorded or stated by the user.

        Raises UserError if there are more images than originals.
        """
        return pairs_of_given(self.config, self.path, self.n, self.shape) if have_pairs(metrics) else Pairs()

    def class_names(self, of_data: Sequence[str] | None) -> Sequence[str] | None:
        """The class names, of the data set or else of the folders."""
        return self.shown.names if of_data is None else of_data

    def check(self, metrics: MetricsConfig, class_names: Sequence[str] | None) -> None:
        """Raises UserError if a metric uses classes and the images have one that the data lacks, if a metric does not
        apply to these images, or if none reads the captions."""
        unlabelled = self.shown.why_none if self.highest is None else None
        uncaptioned = None if self.captions is not None else UNCAPTIONED
        facts = SampleFacts(self.shape, None, class_names, unlabelled, self.highest, uncaptioned)
        refuse_unfit_samples(metrics, facts)
        if self.captions is not None and not any("captions" in one.keeps for one in build_metrics(metrics).values()):
            raise UserError("prompts is used by none of the metrics: choose metrics=clip_score, or leave prompts out")
        name = classes_are_read(metrics)
        if name is None or class_names is None or self.highest is None or self.highest < len(class_names):
            return
        raise UserError(
            f"samples={self.config.samples}: arr_1 has class {self.highest}, but the data set names "
            f"{len(class_names)}, 0..{len(class_names) - 1}: give the data of these images, or set "
            f"metrics.{name}=null"
        )

    @property
    def kept(self) -> Kept:
        """`evaluations` beside the images, and `<name>-<hash>-n<n>`.

        For an archive that `difflab sample` wrote into a folder of images, `evaluations` is beside that folder. The
        hash is of the images and of what they are evaluated with.
        """
        place = self.path.parent
        if (place / RECORD).is_file():
            place = place.parent
        how = self.config.model_dump(mode="json", include={"metrics", "data", "split", "prompts"})
        text = json.dumps({**how, "samples": self.content_hash}, sort_keys=True)
        name = "-".join(self.path.relative_to(place).parts)
        digest = hashlib.sha256(text.encode()).hexdigest()
        files = [] if self.captions is None else self.captions.files
        return Kept(place / "evaluations", f"{name}-{digest[:6]}-n{self.n}", files, [self.content_hash])


def given_samples(config: EvaluateSamplesConfig, processes: Processes, device: torch.device) -> GivenSamples:
    """The images, of which this process evaluates its share. Called by all processes together.

    Raises UserError if there are none, or if their size or channels differ from those of the data set.
    """
    with processes.agreeing():
        pictures, path, n = open_samples(config)
        shown = folder_classes(pictures, class_names_of_data(config.data))
        captions = None if config.prompts is None else listed_captions(config.prompts)
        if captions is not None and len(captions) > len(pictures):
            raise UserError(
                f"prompts gives {len(captions)}, but {_shown(config)} holds {len(pictures)} images: give a caption for "
                "each image, in their order"
            )
    # Hashing reads all images, which one process does for the others.
    digest, highest = processes.from_first(lambda: _read_through(pictures, shown, n, _shown(config)))
    return GivenSamples(pictures, path, n, digest, highest, shown, captions, config, processes, device)


def class_names_of_data(data: DataConfig | None) -> list[str] | None:
    """The class names of the data set, if it exists; not every metric needs it."""
    from difflab.data.build import class_names_of

    return class_names_of(data) if data is not None and Path(data.path).exists() else None


def open_samples(config: EvaluateSamplesConfig) -> tuple[ArchivePictures | FolderPictures, Path, int]:
    """The images, their path, and how many of them are evaluated. Raises UserError like given_samples."""
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
    """Raises UserError unless the images have the size and the channels of the data."""
    data, (height, width) = config.data, pictures.size
    if data is None:
        return
    if (height, width) != (data.image_size, data.image_size):
        crop = "with data.crop=adm, edm or resize_short if the data set has another size"
        own = f"set data.image_size={width} ({crop}), or resize" if width == height else "cut and resize"
        raise UserError(
            f"{shown} holds {width}x{height} images and data.image_size={data.image_size}: {own} the samples; "
            "samples are never resized here, because that changes the results"
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
    """The hash of the first n images and their classes, and the highest class."""
    digest = hashlib.sha256(json.dumps([n, pictures.channels, *pictures.size]).encode())
    highest: int | None = None
    for first in range(0, n, HASHED_AT_ONCE):
        try:
            batch = classes.added(pictures(range(first, min(n, first + HASHED_AT_ONCE)), 0))
        except UserError as error:
            raise UserError(f"{shown}: {error} (repair or remove it)") from None
        digest.update(batch[FIELD].contiguous().numpy().tobytes())
        label = batch.get("label")
        if isinstance(label, Tensor):
            digest.update(label.numpy().tobytes())
            highest = max(int(label.max()), -1 if highest is None else highest)
    return digest.hexdigest(), highest
