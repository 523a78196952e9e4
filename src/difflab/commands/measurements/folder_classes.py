"""The classes of given images, read from the names of their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from difflab.requests.archives import ArchivePictures
from difflab.requests.images import FolderPictures
from difflab.types import Batch

NONE_SAID = "the samples have none: sort them into a folder per class, or give an archive with arr_1"


@dataclass(frozen=True)
class FolderClasses:
    """labels: the class of each image, None if folders are not classes. names: the names of the classes.
    why_none: why there are none, and what to do.
    """

    labels: Sequence[int] | None = None
    names: Sequence[str] | None = None
    why_none: str = NONE_SAID

    def added(self, batch: Batch) -> Batch:
        """The batch with the class of each image as `label`, if folders are classes."""
        if self.labels is None:
            return batch
        return {**batch, "label": torch.tensor([self.labels[i] for i in batch["index"].tolist()])}


def folder_classes(pictures: ArchivePictures | FolderPictures, known: Sequence[str] | None) -> FolderClasses:
    """The classes of images by folder. known: the class names of the data set, if there is one."""
    folders = pictures.folders if isinstance(pictures, FolderPictures) else None
    if folders is None:
        return FolderClasses()
    names = sorted(set(folders)) if known is None else list(known)
    strange = next((folder for folder in folders if folder not in names), None)
    if strange is not None:
        return FolderClasses(
            why_none=f"their folder {strange!r} is not a class of the data set: name folders after its classes"
        )
    return FolderClasses([names.index(folder) for folder in folders], names)
