"""Images of a folder or an archive: low-resolution images to enlarge, initial images, masks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from difflab.config.data import Alpha
from difflab.console import printable
from difflab.data.bad_files import read_whole
from difflab.data.decode import BadImage, decode_image, image_channels, image_size, readable_endings
from difflab.data.sources.folder.listing import in_words, list_folder
from difflab.errors import UserError
from difflab.requests.archives import ArchivePictures
from difflab.requests.base import Nothing, Wanted
from difflab.requests.cutting import AS_THEY_ARE, REMEDY, Cut, cut_of
from difflab.requests.drawings import beside_pictures
from difflab.types import Batch

_log = logging.getLogger(__name__)
_NAMED = 10
_Result = TypeVar("_Result")


class FolderPictures(Nothing):
    """The images of a folder as `field`, in the order of their names and cycled through, read as
    `difflab data make source=folder` reads them; of a `difflab sample` folder only the samples. Or one image file.

    channels: of the images (None: as in the files). alpha: the background of transparent pixels.
    cut: how they become the model's size.
    size: (H, W) of every image, according to the file headers, and after they are cut.

    Raises UserError if there are no images, if one is invalid, and if their sizes differ and they are not cut (without
    `channels` also whether they have colours); other files are named in a warning.
    """

    def __init__(
        self,
        field: str,
        path: Path,
        channels: int | None = 3,
        *,
        alpha: Alpha = "white",
        key: str | None = None,
        cut: Cut = AS_THEY_ARE,
    ) -> None:
        self.fields = (field,)
        self._cut = cut
        self._shown = f"{key or field}={printable(path)}"
        self._name = path.name
        self._alpha: Alpha = alpha
        self._root = path
        self._paths = [path] if path.is_file() else self._listed(path)
        sizes: dict[tuple[int, int], Path] = {}
        for path_of_one, size in zip(self._paths, self._each(image_size), strict=True):
            sizes.setdefault(cut.size(size), path_of_one)
        if len(sizes) > 1:
            remedy = "cut and resize them to one" if cut.side is None else f"{REMEDY}, or resize them to one"
            listed = ", ".join(f"{w}x{h} ({printable(one.name)})" for (h, w), one in list(sizes.items())[:_NAMED])
            raise UserError(f"{self._shown} holds images of several sizes: {listed}; {remedy}")
        self.size = next(iter(sizes))
        self.channels = self._one_kind() if channels is None else channels

    def _listed(self, path: Path) -> list[Path]:
        besides = beside_pictures(path, self._shown)
        try:
            listing = list_folder(path)
        except UserError as error:
            raise UserError(f"{self._shown}: {error}") from None
        paths = [path / name for name in listing.images if name not in besides]
        if not paths:
            raise UserError(f"{self._shown} holds no images but {', '.join(listing.images)}")
        left_out = {why: [name for name in names if name not in besides] for why, names in listing.left_out.items()}
        if any(left_out.values()):
            _log.warning("%s: files left out: %s", self._shown, in_words(left_out))
        return paths

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def files(self) -> list[Path]:
        return list(self._paths)

    def __call__(self, indices: Sequence[int], seed: int) -> Batch:
        pictures = [
            read_picture(self._paths[i % len(self._paths)], self.channels, self._alpha, self._cut) for i in indices
        ]
        return {**super().__call__(indices, seed), self.fields[0]: torch.stack(pictures)}

    @property
    def folders(self) -> list[str] | None:
        """The immediate subfolder of each image; None if any image is in none."""
        inside = [one.relative_to(self._root).parts for one in self._paths] if self._root.is_dir() else [()]
        return [parts[0] for parts in inside] if all(len(parts) > 1 for parts in inside) else None

    def record(self) -> dict[str, Any]:
        return {self.fields[0]: self._cut.named(self._name)}

    def without_pictures(self) -> Nothing:
        return Nothing()

    def decode_all(self) -> None:
        """Decodes every image, so that no long run fails at the last one. Raises UserError naming the bad files."""
        self._each(lambda data: decode_image(data, channels=self.channels, alpha=self._alpha).shape)

    def channels_of_files(self) -> dict[int, Path]:
        """Which of gray (1) and colour (3) files there are, with the first of each, according to their headers."""
        found: dict[int, Path] = {}
        for path, channels in zip(self._paths, self._each(image_channels), strict=True):
            found.setdefault(channels, path)
        return found

    def _one_kind(self) -> int:
        found = self.channels_of_files()
        if len(found) > 1:
            gray, colour = (printable(found[channels].name) for channels in (1, 3))
            raise UserError(f"{self._shown} holds gray images ({gray}) and RGB ones ({colour}); make them alike")
        return next(iter(found))

    def _each(self, what: Callable[[bytes], _Result]) -> list[_Result]:
        results: list[_Result] = []
        bad: list[str] = []
        for path in self._paths:
            try:
                results.append(_of_file(path, what))
            except UserError as error:
                bad.append(str(error))
        if bad:
            more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            raise UserError(f"{self._shown}: {'; '.join(bad[:_NAMED])}{more} (repair or remove them)")
        return results


def read_picture(path: Path, channels: int, alpha: Alpha = "white", cut: Cut = AS_THEY_ARE) -> Tensor:
    """uint8 [channels, H, W] of an image file, composited onto `alpha`, and cut. Raises UserError if it is not one."""
    return cut(_of_file(path, lambda data: decode_image(data, channels=channels, alpha=alpha)))


def picture_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file, according to its header. Raises UserError if it is not one."""
    return _of_file(path, image_size)


def picture_channels(path: Path) -> int:
    """1 for a gray image file, 3 for others, according to its header. Raises UserError if it is not one."""
    return _of_file(path, image_channels)


def _of_file(path: Path, what: Callable[[bytes], _Result]) -> _Result:
    content = read_whole(path)
    try:
        return what(content)
    except BadImage as error:
        raise UserError(f"{printable(path)} cannot be read as an image: {error}") from None


def open_pictures(
    field: str, given: str, wanted: Wanted, *, key: str | None = None
) -> ArchivePictures | FolderPictures:
    """The images of an archive or a folder as `field`, or the one of an image file.

    key: the option with which the path was given, if it is not `field`.
    Raises UserError if there are no images, or if they do not have the required size or channels.
    """
    path, key = Path(given), key or field
    if not path.is_dir() and not path.is_file():
        raise UserError(f"{key}={given} does not exist: give an archive (.npz), a folder of images or one image")
    channels, cut = channels_of(field, wanted), cut_of(field, wanted)
    labelled = "label" in wanted.known and field != "mask"
    shown = f"{key}={printable(path)}"
    source = (
        FolderPictures(field, path, channels, alpha=wanted.alpha, key=key, cut=cut)
        if path.is_dir() or path.suffix.lower() in readable_endings()
        else ArchivePictures(field, path, channels, wanted.classes, labelled=labelled, key=key, cut=cut)
    )
    refuse_other_size(shown, field, source.size, wanted)
    if isinstance(source, FolderPictures):
        refuse_other_channels(shown, field, source.channels_of_files(), wanted)
        source.decode_all()
    return source


def refuse_other_channels(shown: str, field: str, found: Mapping[int, Path], wanted: Wanted) -> None:
    """Raises UserError if images to enlarge lack the colours that the model needs, or have colours that it cannot use.

    found: the first file of each kind, by its number of channels. A few gray images among coloured ones are allowed.
    """
    if field != "low_res":
        return
    if wanted.channels == 1 and 3 in found:
        raise UserError(f"{shown} has colours ({printable(found[3].name)}), and this model enlarges gray images")
    if wanted.channels == 3 and 3 not in found:
        raise UserError(f"{shown} holds gray images, and this model enlarges RGB ones; give them in RGB")


def channels_of(field: str, wanted: Wanted) -> int:
    """The number of channels of an image field."""
    return 1 if field == "mask" else wanted.channels


def refuse_other_size(shown: str, field: str, size: tuple[int, int], wanted: Wanted) -> None:
    """Raises UserError unless images of (H, W) `size` have the size required of `field`."""
    side = wanted.sizes.get(field)
    if side is not None and size != (side, side):
        remedy = "" if cut_of(field, wanted).side is None else f": {REMEDY}"
        raise UserError(f"{shown} holds {size[1]}x{size[0]} images; this model takes {side}x{side} as {field}{remedy}")
